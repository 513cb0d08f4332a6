"""The body of a RUN as it goes to a worker: canonical JSON, of which every field is checked when it is read.

It says all that the key counts, so that the worker can work the key out, and how what the key counts is laid out in
the layers that are sent.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from cache import encoding
from cache.digest import Digest
from cache.errors import BuildgraphError, CorruptBlob
from cache.platform import Platform
from cache.result import Layer
from worker.action import Action
from worker.operation import Run, key_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.operation import Mount

VERSION = 2
MAX_BODY = 1 << 20
"""Bytes: 500 layers have 200 KB."""
MAX_ITEMS = 10_000
"""Arguments, variables, mounts, sources of one operation."""
MAX_INPUTS = 1_000
MAX_LAYERS = 2_000
"""Of all inputs together: overlayfs takes 500, and there are bind mounts."""
MAX_NUMBER = 1 << 62
MAX_MARKS = 64
"""Secrets that count in one key."""
FILE = "file"
"""What a single file of a context is called in a layer of its own."""
MAX_TAR = 1 << 44
"""Bytes of a layer, 16 TiB."""
_KEY = re.compile(r"[0-9a-f]{64}")
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")
_ULIMIT = re.compile(r"[a-z]{1,20}")
_TEXTS = frozenset({"body", "text"})
"""Fields that are the content of files, which may hold anything."""


class Place(NamedTuple):
    """Where what a mount shows of a context lies: in a layer of just that. mount: number of the mount. input: number of
    the action's input that is that layer alone. source: "" for all of it, or FILE. digest: what the key counts."""

    mount: int
    input: int
    source: str
    digest: str


class Body(NamedTuple):
    """action: with the operation as keys count it, and with layers alone as inputs; of contexts there are none. places:
    of the mounts that show files of contexts. marks: (id, mark) of secrets in the key."""

    action: Action
    places: tuple[Place, ...] = ()
    marks: tuple[tuple[str, str], ...] = ()

    @property
    def run(self) -> Run:
        assert isinstance(self.action.operation, Run)
        return self.action.operation

    def placed(self) -> Action:
        """As it is executed."""
        mounts = list(self.run.mounts)
        for place in self.places:
            mounts[place.mount] = mounts[place.mount]._replace(input=place.input, source=place.source)
        return self.action._replace(operation=self.run._replace(mounts=tuple(mounts)))


def encode_body(body: Body) -> bytes:
    """All inputs must be layers, each with its tar and its listing. Raises ValueError for others."""
    inputs, action = [], body.action
    for given in action.inputs:
        if not isinstance(given, tuple) or any(layer.tar is None or layer.listing is None for layer in given):
            raise ValueError("an input is no list of layers that are known by their bytes")
        inputs.append([layer.to_json() for layer in given])
    value = {
        "version": VERSION, "operation": key_form(body.run), "inputs": inputs, "platform": action.platform,
        "places": [list(place) for place in body.places], "secrets": [list(each) for each in body.marks],
    }  # fmt: skip
    return encoding.canonical(value)


def decode_body(key: str, data: bytes) -> Body:
    """What was encoded, from somebody who is not trusted. Whether the key is that of what it says shows once the inputs
    are there: `check_key`. Raises CorruptBlob."""
    if len(data) > MAX_BODY:
        raise CorruptBlob(f"the body of an action has {len(data)} bytes, more than {MAX_BODY}")
    if not _KEY.fullmatch(key):
        raise CorruptBlob("the key of an action has 64 hex digits")
    try:
        return _decode(key, encoding.parse(data))
    except (*encoding.UNREADABLE, BuildgraphError, RecursionError) as error:
        reason = getattr(error, "message", "") if isinstance(error, CorruptBlob) else str(error)
        raise CorruptBlob(f"the body of an action is not as it should be: {reason[:200]}") from None


def _decode(key: str, value: Any) -> Body:
    _require(isinstance(value, dict), "it is no object")
    fields = {"version", "operation", "inputs", "platform", "places", "secrets"}
    _require(value.keys() == fields, "it has other fields")
    _require(value["version"] == VERSION and value["version"] is not True, "it is of another version")
    operation: Run = _record(Run, value["operation"])
    platform = value["platform"]
    _require(isinstance(platform, str) and len(platform) < 200, "its platform is no text")
    _require(not platform or str(Platform.parse(platform)) == platform, "its platform is not in the usual form")
    inputs = _inputs(value["inputs"])
    _check_run(operation, len(inputs))
    places, marks = _places(value["places"], operation, inputs), _marks(value["secrets"])
    return Body(Action(key, operation, inputs, platform), places, marks)


# values by their types


def _record(kind: type, form: Any) -> Any:
    """A NamedTuple from what `key_form` made of it."""
    _require(isinstance(form, dict) and form.get("is") == kind.__name__, f"a {kind.__name__} is something else")
    hints = _hints(kind)
    _require(form.keys() == hints.keys() | {"is"}, f"a {kind.__name__} has other fields")
    return kind(*(_value(hint, form[name], name) for name, hint in hints.items()))


def _value(hint: Any, given: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is str:
        _require(isinstance(given, str), f"{name} is no text")
        _require("\0" not in given or name in _TEXTS, f"{name} holds a NUL")
        return given
    if hint is bool or hint is type(None):
        _require(type(given) is hint, f"{name} is of another type")
        return given
    if hint is int:
        _require(type(given) is int and abs(given) <= MAX_NUMBER, f"{name} is no number")
        return given
    if origin in (Union, types.UnionType):
        return _value(_choice(typing.get_args(hint), given), given, name)
    if origin is tuple:
        return _tuple(typing.get_args(hint), given, name)
    return _record(hint, given)


def _choice(hints: tuple[Any, ...], given: Any) -> Any:
    """Which of the types it can only be."""
    if isinstance(given, dict):
        named = [each for each in hints if getattr(each, "__name__", "") == given.get("is")]
    else:
        named = [each for each in hints if type(given) is each]
    _require(len(named) == 1, "a value is of another type")
    return named[0]


def _tuple(hints: tuple[Any, ...], given: Any, name: str) -> tuple[Any, ...]:
    _require(isinstance(given, list) and len(given) <= MAX_ITEMS, f"{name} is no list, or a longer one than there are")
    if hints[1:] == (...,):
        return tuple(_value(hints[0], each, name) for each in given)
    _require(len(given) == len(hints), f"{name} has other parts")
    return tuple(_value(hint, each, name) for hint, each in zip(hints, given, strict=True))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


# what the types do not say


def _inputs(given: Any) -> tuple[tuple[Layer, ...], ...]:
    _require(isinstance(given, list) and 0 < len(given) <= MAX_INPUTS, "it has no inputs, or too many")
    _require(all(isinstance(each, list) for each in given), "an input is no list of layers")
    _require(sum(map(len, given)) <= MAX_LAYERS, "it has more layers than can be mounted")
    return tuple(tuple(map(_layer, each)) for each in given)


def _layer(given: Any) -> Layer:
    layer = Layer.from_json(given)
    _require(bool(_DIFF_ID.fullmatch(layer.diff_id)), "a layer is named by something that is no digest")
    _require(layer.content == layer.diff_id or bool(_KEY.fullmatch(layer.content)), "a layer's content is no digest")
    for blob in (layer.tar, layer.listing):
        _require(isinstance(blob, Digest) and blob.size <= MAX_TAR, "a layer is not known by its bytes")
    return layer


def _check_run(run: Run, inputs: int) -> None:
    _require(bool(run.argv), "it runs nothing")
    _require(run.cwd.startswith("/"), "its working directory is not absolute")
    _require(run.network in ("default", "none"), "its network is unknown")
    _require(all(name and "=" not in name for name, _ in run.env), "a variable has no name")
    _require(run.shm_size >= 0, "its /dev/shm has a size below nothing")
    _require(all(_ULIMIT.fullmatch(name) for name, *_ in run.ulimits), "a limit has an unknown name")
    names = [script.name for script in run.scripts]
    wrong = any(not name or "/" in name or name in (".", "..") or "\0" in name for name in names)
    _require(not wrong and len(set(names)) == len(names), "a script has no name for a file")
    for mount in run.mounts:
        _check_mount(mount, inputs)


def _check_mount(mount: Mount, inputs: int) -> None:
    _require(mount.type in ("bind", "cache", "tmpfs", "secret", "ssh"), "a mount is of an unknown type")
    _require(mount.sharing in ("", "shared", "private", "locked"), "a mount is shared in an unknown way")
    _require(mount.target.startswith("/") or (mount.type == "secret" and not mount.target), "a mount has no place")
    _require(mount.input is not None or mount.type != "bind", "a mount comes from nowhere")
    _require(mount.input is None or 0 <= mount.input < inputs, "a mount comes from an input that is not there")
    _require(0 <= mount.mode <= 0o7777 and mount.size >= 0, "a mount has a mode or a size that is none")
    _require(all(0 <= owner < 1 << 32 for owner in (mount.uid, mount.gid)), "a mount has an owner that is none")
    _require("=" not in mount.env, "a secret's variable has no name")


def _places(given: Any, run: Run, inputs: Sequence[tuple[Layer, ...]]) -> tuple[Place, ...]:
    _require(isinstance(given, list) and len(given) <= len(run.mounts), "its places are no list, or too many")
    places: list[Place] = []
    for each in given:
        place = Place(*_tuple((int, int, str, str), each, "a place"))
        _require((places[-1].mount if places else -1) < place.mount < len(run.mounts), "a place is of no mount")
        _require(run.mounts[place.mount].input is not None, "a place is of a mount without an input")
        _require(0 < place.input < len(inputs) and len(inputs[place.input]) == 1, "a place is no layer")
        _require(place.source in ("", FILE) and bool(_KEY.fullmatch(place.digest)), "a place says something else")
        places.append(place)
    return tuple(places)


def _marks(given: Any) -> tuple[tuple[str, str], ...]:
    _require(isinstance(given, list) and len(given) <= MAX_MARKS, "its secrets are no list, or too many")
    return tuple((name, mark) for name, mark in (_tuple((str, str), each, "a mark") for each in given))


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise CorruptBlob(text)
