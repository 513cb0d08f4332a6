"""The body of an action: what arrives is what was sent, or is refused."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import encoding
from cache.digest import Digest
from cache.errors import CorruptBlob
from cache.result import Layer
from worker.action import Action
from worker.fleet.action_body import MAX_BODY, decode_body, encode_body
from worker.operation import Copy, Inline, MakeDirectory, Mount, Pattern, Run, Script

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "ab" * 32
texts = st.text(st.characters(exclude_characters="\0"), max_size=20)
paths = texts.map(lambda text: f"/{text}")
numbers = st.integers(0, 1 << 31)
digests = st.binary(max_size=40).map(Digest.of)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
layers = st.builds(
    lambda diff_id, content, tar, listing: Layer(f"sha256:{diff_id}", content or f"sha256:{diff_id}", tar, listing),
    hashes, st.one_of(st.just(""), hashes), digests, digests,
)  # fmt: skip
inputs = st.lists(st.lists(layers, max_size=3).map(tuple), min_size=2, max_size=3).map(tuple)
mounts = st.builds(
    Mount, st.sampled_from(("bind", "cache", "tmpfs", "secret", "ssh")), paths, st.sampled_from((0, 1)), texts, st.booleans(), texts,
    st.sampled_from(("shared", "private", "locked")), numbers, st.integers(0, 0o7777), numbers, numbers, st.booleans(),
    st.sampled_from(("", "TOKEN")),
)  # fmt: skip
runs = st.builds(
    Run, st.lists(texts, min_size=1, max_size=3).map(tuple), st.lists(st.tuples(st.sampled_from(("A", "B_c")), texts), max_size=3).map(tuple),
    paths, texts, st.sampled_from(("default", "none")), texts, st.lists(mounts, max_size=3).map(tuple),
    st.sampled_from(((), (Script("EOF", "#!/bin/sh\0\n"),))), st.lists(texts, max_size=2).map(tuple), numbers,
    st.sampled_from(((), (("nofile", 1, -1),))), st.booleans(),
)  # fmt: skip
sources = st.lists(st.one_of(st.builds(Pattern, st.just(1), texts, st.booleans()), st.builds(Inline, texts, st.text(max_size=9))), max_size=3)
copies = st.builds(Copy, sources.map(tuple), paths, texts, texts, st.booleans(), st.lists(texts, max_size=2).map(tuple), st.booleans(), st.booleans())
operations = st.one_of(runs, copies, st.builds(MakeDirectory, paths, texts))
actions = st.builds(Action, st.just(KEY), operations, inputs, st.sampled_from(("", "linux/amd64", "linux/arm/v7", "linux/amd64/v2")))


@given(actions)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_every_action_comes_back(action: Action) -> None:
    body = encode_body(action)
    assert body == encode_body(decode_body(KEY, body))
    assert decode_body(KEY, body) == action


def places(value: Any) -> list[list[Any]]:
    """The way to each value in a JSON document."""
    found: list[list[Any]] = [[]]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        found += [[name, *way] for way in places(each)]
    return found


@given(actions, st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_changed_either_makes_sense_or_is_refused(action: Action, data: st.DataObject) -> None:
    value = json.loads(encode_body(action))
    way = data.draw(st.sampled_from(places(value)))
    strange = data.draw(st.sampled_from((None, True, -1, 1 << 63, 1.5, "", "x", "\0", [], {}, [[]], {"is": "Run"}, {"is": "Mount"}, ["x"] * 3)))
    changed = copy.deepcopy(value)
    if way:
        place = changed
        for name in way[:-1]:
            place = place[name]
        place[way[-1]] = strange
    else:
        changed = strange
    with contextlib.suppress(CorruptBlob):
        found = decode_body(KEY, encoding.canonical(changed))
        assert encode_body(found) == encoding.canonical(changed), "nothing is taken for something else"


@given(st.binary(max_size=60))
def test_bytes_that_are_no_body_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptBlob):
        decode_body(KEY, data)


def simple(**fields: Any) -> dict[str, Any]:
    layer = Layer(f"sha256:{KEY}", KEY, Digest.of(b"t"), Digest.of(b"l"))
    run = Run(("sh",), (("A", "b"),), "/", "", "default", "buildkitsandbox", (Mount("bind", "/m", 1),), (Script("EOF", "x"),))
    value: dict[str, Any] = json.loads(encode_body(Action(KEY, run, ((layer,), ()), "linux/amd64")))
    value.update(fields)
    return value


def edit(value: dict[str, Any], *way: Any, to: Any) -> dict[str, Any]:
    place: Any = value
    for name in way[:-1]:
        place = place[name]
    place[way[-1]] = to
    return value


WRONG: dict[str, Callable[[], dict[str, Any]]] = {
    "another version": lambda: simple(version=2),
    "a version that is none": lambda: simple(version=True),
    "one field more": lambda: simple(more=1),
    "no inputs": lambda: simple(inputs=[]),
    "too many inputs": lambda: simple(inputs=[[]] * 1001),
    "an unknown operation": lambda: edit(simple(), "operation", "is", to="Format"),
    "one field of it more": lambda: edit(simple(), "operation", "more", to=1),
    "a mount in place of the operation": lambda: simple(operation=simple()["operation"]["mounts"][0]),
    "nothing to run": lambda: edit(simple(), "operation", "argv", to=[]),
    "a NUL": lambda: edit(simple(), "operation", "argv", to=["a\0b"]),
    "a variable without a name": lambda: edit(simple(), "operation", "env", to=[["", "x"]]),
    "a variable of three parts": lambda: edit(simple(), "operation", "env", to=[["A", "b", "c"]]),
    "a relative directory": lambda: edit(simple(), "operation", "cwd", to="tmp"),
    "another network": lambda: edit(simple(), "operation", "network", to="host"),
    "a script that leaves its place": lambda: edit(simple(), "operation", "scripts", 0, "name", to="../../etc/passwd"),
    "a mount of another type": lambda: edit(simple(), "operation", "mounts", 0, "type", to="host"),
    "a mount of an input that is not there": lambda: edit(simple(), "operation", "mounts", 0, "input", to=2),
    "a mount of an input before the first": lambda: edit(simple(), "operation", "mounts", 0, "input", to=-1),
    "a bind of nothing": lambda: edit(simple(), "operation", "mounts", 0, "input", to=None),
    "a mount at no place": lambda: edit(simple(), "operation", "mounts", 0, "target", to="m"),
    "a mode that is none": lambda: edit(simple(), "operation", "mounts", 0, "mode", to=-1),
    "an owner that is none": lambda: edit(simple(), "operation", "mounts", 0, "uid", to=1 << 32),
    "a layer without its tar": lambda: edit(simple(), "inputs", 0, 0, 2, to=None),
    "a layer that is named like a path": lambda: edit(simple(), "inputs", 0, 0, 0, to="sha256:../../etc/passwd"),
    "a layer whose content is a path": lambda: edit(simple(), "inputs", 0, 0, 1, to="../x"),
    "a blob that is named like a path": lambda: edit(simple(), "inputs", 0, 0, 2, to="../x/1"),
    "a blob of any size": lambda: edit(simple(), "inputs", 0, 0, 2, to=f"{KEY}/{1 << 60}"),
    "a platform that is none": lambda: simple(platform="linux/amd64/a/b"),
    "a platform in another form": lambda: simple(platform="linux/x86_64"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_no_build_would_send_is_refused(what: str) -> None:
    assert decode_body(KEY, encoding.canonical(simple()))
    with pytest.raises(CorruptBlob):
        decode_body(KEY, encoding.canonical(WRONG[what]()))


@pytest.mark.parametrize("key", ["", "AB" * 32, "ab" * 31, "../" + "a" * 61])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(CorruptBlob):
        decode_body(key, encoding.canonical(simple()))


def test_a_body_has_a_size_and_a_depth() -> None:
    with pytest.raises(CorruptBlob, match="more than"):
        decode_body(KEY, bytes(MAX_BODY + 1))
    with pytest.raises(CorruptBlob):
        decode_body(KEY, b"[" * 500_000)


def test_only_layers_that_are_known_by_their_bytes_are_sent() -> None:
    action = Action(KEY, MakeDirectory("/x"), ((Layer(f"sha256:{KEY}", KEY),),))
    with pytest.raises(ValueError, match="no list of layers"):
        encode_body(action)
