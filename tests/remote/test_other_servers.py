"""Servers that are none of ours, of another version, or that tell lies which fit together."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from team import Another, CacheServer, records, warnings

from cache import encoding
from cache.index import Index
from cache.promises import Names
from cache.recipe import Recipe
from cache.remote.client import Client
from cache.remote_settings import RemoteSettings
from cache.result import Result
from tests.cache.real_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import MakeMachine

STEPS = """
FROM busybox
RUN echo it was said
COPY large /large
RUN wc -c < /large > /size
"""
LARGE = random.Random(2).randbytes(6 << 20)


def test_a_server_of_somebody_else_with_sha256_alone(machine: MakeMachine, tmp_path: Path) -> None:
    another = Another()
    foreign = CacheServer(tmp_path / "foreign", interceptors=(another,))
    try:
        first, second = machine("a", remote=foreign.url), machine("b", remote=foreign.url)
        ran = first.build(first.project(STEPS, {"large": LARGE}), "-o", f"type=tar,dest={tmp_path / 'a.tar'}").ok()
        assert not warnings(ran)
        keys = [key for key, _ in foreign.store.scan("actions")]
        assert len(keys) == 8, "a recipe and a content key of each step"
        assert all("sha256/" in key for key in keys)
        found = second.build(second.project(STEPS, {"large": LARGE}), "-o", f"type=tar,dest={tmp_path / 'b.tar'}").ok()
        assert not found.executed
        assert not warnings(found)
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
        assert "Read" in another.called, "large blobs come as streams"
        log = second.call("log", "0.1", second.root / "project", "--remote", foreign.url).ok()
        assert log.stdout == "it was said\n"
    finally:
        foreign.stop()


def test_another_version_of_the_protocol_is_told_and_left_alone(machine: MakeMachine, tmp_path: Path) -> None:
    foreign = CacheServer(tmp_path / "foreign", interceptors=(Another(version=3),))
    try:
        alone = machine("a", remote=foreign.url)
        ran = alone.build(alone.project(STEPS, {"large": b"x"})).ok()
        assert len(ran.executed) == 4
        assert len(warnings(ran)) == 1
        assert "version 3" in warnings(ran)[0]
        assert not list(foreign.store.scan("actions"))
    finally:
        foreign.stop()


@pytest.mark.parametrize("lie", ["listing", "content", "tar"])
def test_lies_that_fit_together_are_refused(machine: MakeMachine, server: CacheServer, tmp_path: Path, lie: str) -> None:
    """Every blob has its digest, and still the result says something else than its tar."""
    first, second = machine("a"), machine("b")
    first.build(first.project("FROM busybox\nRUN echo true > /file\nRUN cat /file > /copy\n")).ok()
    results = {key: Result.from_json(json.loads(value)) for key, value in records(first, "results").items()}
    recipes = {value.split()[0].decode(): key for key, value in records(first, "recipes").items()}
    settings = RemoteSettings(False, server.url.removeprefix("grpc://"), ("",), "")
    client = Client(settings)
    from cache.digest import Digest
    from cache.server.shelf import both_names

    for key, result in results.items():
        layer = result.layer
        assert layer is not None
        assert layer.listing is not None
        if lie == "listing":
            from cache.lmdb_store import LmdbStore

            store = LmdbStore(str(first.store))
            index = Index.decode(store.read_blob(layer.listing))
            store.close()
            false = Index([each._replace(mtime=each.mtime + 1) for each in index.entries], index.small).encode()
            server.store.start_writer()
            from cache.server.shelf import Shelf

            Shelf(server.store).put("", [both_names(false)], "liar")
            layer = layer._replace(listing=Digest.of(false))
        elif lie == "content":
            layer = layer._replace(content="0" * 64)
        else:
            other = next(each.layer for each in results.values() if each.layer and each.layer.tar != layer.tar)
            layer = layer._replace(tar=other.tar)
        wrong = result._replace(layer=layer)
        names = Names(str(layer.tar), str(layer.listing), "" if result.log is None else str(result.log))
        recipe = Recipe(key)
        client.put_results("", [("content", key, recipe, wrong, names), ("recipe", recipes[key], recipe, wrong, names)])
    client.close()
    ran = second.build(
        second.project("FROM busybox\nRUN echo true > /file\nRUN cat /file > /copy\n"), "-o", f"type=local,dest={tmp_path / 'out'}"
    ).ok()
    assert (tmp_path / "out/copy").read_text() == "true\n"
    assert len(ran.executed) == 3, "nothing that lied was used"
    assert warnings(ran)
    for value in records(second, "results").values():
        assert encoding.parse(value)["made_by"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as found:
        yield found


def test_a_push_of_what_the_registry_has_moves_nothing(machine: MakeMachine, server: CacheServer, registry: str) -> None:
    first, second = machine("a"), machine("b")
    out = ["-t", f"{registry}/team/app:1", "--push", "--metadata-file"]
    first.build(first.project(STEPS, {"large": LARGE}), *out, first.root / "meta").ok()
    given = server.meter.given
    found = second.build(second.project(STEPS, {"large": LARGE}), *out, second.root / "meta").ok()
    assert not found.executed
    assert server.meter.given == given, "not a byte of a layer came"
    assert not list(records(second, "layers"))
    digest = "containerimage.digest"
    assert json.loads((first.root / "meta").read_text())[digest] == json.loads((second.root / "meta").read_text())[digest]


def test_a_copy_on_a_base_image_does_not_fetch_the_base(machine: MakeMachine, server: CacheServer, registry: str) -> None:
    """The listing of the base comes from the team's cache: what a COPY needs to know is in it."""
    maker, first, second = machine("m"), machine("a"), machine("b")
    maker.build(maker.project("FROM busybox\nCOPY large /large\n", {"large": LARGE}), "-t", f"{registry}/base:1", "--push").ok()
    dockerfile = f"FROM {registry}/base:1\nCOPY file /file\n"
    first.build(first.project(dockerfile, {"file": "x"})).ok()
    ran = second.build(second.project(dockerfile, {"file": "y"})).ok()
    assert len(ran.executed) == 1
    size = sum(path.stat().st_size for path in (second.store / "blobs").rglob("*") if path.is_file())
    assert size < 1 << 20, "the base's bytes are not here"
    # A RUN needs them, and finds them to be what the listing said.
    with_run = second.build(second.project(dockerfile + "RUN wc -c < /large > /size\n", {"file": "y"})).ok()
    assert len(with_run.executed) == 1
