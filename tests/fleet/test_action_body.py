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
from worker.fleet.action_body import MAX_BODY, Body, Place, decode_body, encode_body
from worker.operation import MakeDirectory, Mount, Run, Script, key_form

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
actions = st.builds(Action, st.just(KEY), runs, inputs, st.sampled_from(("", "linux/amd64", "linux/arm/v7", "linux/amd64/v2")))
marks = st.lists(st.tuples(texts, texts), max_size=2).map(tuple)


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    """With places for some of the mounts."""
    action, places = draw(actions), []
    assert isinstance(action.operation, Run)
    for number in range(len(action.operation.mounts)):
        if draw(st.booleans()):
            places.append(Place(number, len(action.inputs), draw(st.sampled_from(("", "file"))), draw(hashes)))
            action = action._replace(inputs=(*action.inputs, (draw(layers),)))
    return Body(action, tuple(places), draw(marks))


@given(bodies())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_every_body_comes_back(body: Body) -> None:
    data = encode_body(body)
    assert decode_body(KEY, data) == body
    assert data == encode_body(decode_body(KEY, data))


def places(value: Any) -> list[list[Any]]:
    """The way to each value in a JSON document."""
    found: list[list[Any]] = [[]]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        found += [[name, *way] for way in places(each)]
    return found


@given(bodies(), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_changed_either_makes_sense_or_is_refused(body: Body, data: st.DataObject) -> None:
    value = json.loads(encode_body(body))
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
    run = Run(("sh",), (("A", "b"),), "/", "", "default", "buildkitsandbox", (Mount("bind", "/m", 1), Mount("tmpfs", "/t")), (Script("EOF", "x"),))
    action = Action(KEY, run, ((layer,), (), (layer,)), "linux/amd64")
    value: dict[str, Any] = json.loads(encode_body(Body(action, (Place(0, 2, "file", KEY),), (("id", "mark"),))))
    value.update(fields)
    return value


def edit(value: dict[str, Any], *way: Any, to: Any) -> dict[str, Any]:
    place: Any = value
    for name in way[:-1]:
        place = place[name]
    place[way[-1]] = to
    return value


WRONG: dict[str, Callable[[], dict[str, Any]]] = {
    "another version": lambda: simple(version=1),
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
    "a mount of an input that is not there": lambda: edit(simple(), "operation", "mounts", 0, "input", to=3),
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
    "a place of a mount that is not there": lambda: edit(simple(), "places", 0, 0, to=2),
    "a place of a mount that shows no input": lambda: edit(simple(), "places", 0, 0, to=1),
    "a place before the first mount": lambda: edit(simple(), "places", 0, 0, to=-1),
    "two places of one mount": lambda: simple(places=[[0, 2, "", KEY]] * 2),
    "a place in the root filesystem": lambda: edit(simple(), "places", 0, 1, to=0),
    "a place in no layer": lambda: edit(simple(), "places", 0, 1, to=1),
    "a place in an input that is not there": lambda: edit(simple(), "places", 0, 1, to=3),
    "a place somewhere in a layer": lambda: edit(simple(), "places", 0, 2, to="etc"),
    "a place with a digest that is none": lambda: edit(simple(), "places", 0, 3, to="absent"),
    "a mark without a secret": lambda: edit(simple(), "secrets", 0, to=["mark"]),
    "too many marks": lambda: simple(secrets=[["id", "mark"]] * 65),
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
    action = Action(KEY, Run(("sh",), (), "/", "", "default", "h"), ((Layer(f"sha256:{KEY}", KEY),),))
    with pytest.raises(ValueError, match="no list of layers"):
        encode_body(Body(action))


def test_what_is_no_run_is_refused() -> None:
    """Its key cannot be worked out by a worker."""
    with pytest.raises(CorruptBlob):
        decode_body(KEY, encoding.canonical(simple(operation=key_form(MakeDirectory("/x")))))
