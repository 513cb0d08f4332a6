"""A store that lost blobs, was cut short or holds garbage: made again where possible, else one message (I6)."""

from __future__ import annotations

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, cast

import pytest
from program import Program

from cache import encoding
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.images import Images
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from cache.result import Layer, Result
from cache.store import TABLES, Batch, Table
from compiler.graph import Node
from compiler.http_files import HttpFiles
from compiler.keys import Keys
from compiler.lookup import Lookup, all_present
from compiler.records import StepRecords
from tests.compiler.graphs import graph, scratch
from worker.library import LayerLibrary
from worker.operation import MakeDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

GARBAGE = [b"\xff\xfe\x00", b"", b"{", b"[]", b"{}", b"null", b"7", b"[" * 100_000, b'{"version": 1}', b'"\\ud800"']
STEPS = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\nWORKDIR /app\nCOPY f f\nRUN echo ran > made\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> tuple[Path, Path]:
    """A project and a store in which it was built once, as app:1."""
    program = Program(tmp_path_factory.mktemp("made"), busybox)
    project = program.project(STEPS, {"f": "f\n"})
    program.build(project, "-t", "app:1").ok()
    return project, program.store


@pytest.fixture
def project(program: Program, made: tuple[Path, Path]) -> Path:
    """The project, with a copy of that store as the program's."""
    shutil.copytree(made[1], program.store)
    return made[0]


def rewrite(directory: Path, tables: Iterable[str], value: bytes) -> None:
    """Overwrite every record of these tables."""
    store = LmdbStore(str(directory))
    keys = [(cast("Table", table), key) for table in tables for key, _ in store.scan(cast("Table", table))]
    store.commit(Batch(records=tuple((table, key, value) for table, key in keys)))
    store.close()


@pytest.mark.parametrize("size", [1, 4096, 8192, 40_000])
def test_a_database_that_was_cut_short(program: Program, project: Path, size: int) -> None:
    os.truncate(program.store / "data.mdb", size)
    for command in (["build", project], ["image", "ls"]):
        failed = program.call(*command).failed(4)
        assert "data.mdb is damaged" in failed.stderr or "not an LMDB file" in failed.stderr
        assert "hint: " in failed.stderr


def test_an_empty_database_is_a_new_one(program: Program, project: Path) -> None:
    os.truncate(program.store / "data.mdb", 0)
    program.build(project).ok()


def test_a_tail_that_no_table_uses_may_be_missing(tmp_path: Path) -> None:
    """LMDB does not always write the last pages that it counts; such a store is whole, and must open."""
    opened_anyway = 0
    for number in range(12):
        directory = tmp_path / str(number)
        store = LmdbStore(str(directory))
        for round_ in range(6):
            store.commit(Batch(records=tuple(("stats", f"{round_} {key}", bytes(1000 * number)) for key in range(20))))
            store.commit(Batch(deleted=tuple(("stats", f"{round_} {key}") for key in range(1, 20))))
        store.close()
        path = directory / "data.mdb"
        os.truncate(path, path.stat().st_size - 4096)
        try:
            store = LmdbStore(str(directory))
        except StoreProblem:
            continue
        opened_anyway += 1
        store.commit(Batch(records=tuple(("stats", f"new {key}", bytes(5000)) for key in range(200))))
        assert len(store.scan("stats")) == 206
        store.close()
    assert opened_anyway


# records that cannot be read


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "records"))
    yield opened
    opened.close()


@pytest.mark.parametrize("value", GARBAGE)
def test_what_can_be_made_again_counts_as_missing(store: LmdbStore, value: bytes) -> None:
    made = graph(scratch(), Node("1", "workdir", "s", "", None, ("scratch",), MakeDirectory("/x", "")))
    step = made["1"]
    layer = Layer(f"sha256:{'0' * 64}", "content")

    def read() -> StepRecords:
        return StepRecords(store, "file", made, Keys(made, lambda _: None))

    rows = [*read().made(step, 1.0), read().built("build", {"1": read().place_now(step, "key")})]
    store.commit(
        Batch(
            records=(
                ("recipes", "bad", value), ("recipes", "recipe", b"key"), ("results", "key", value),
                ("layers", layer.diff_id, value),
                *((table, key, value) for table, key, _ in rows),
            )
        )
    )  # fmt: skip
    assert Lookup(store).by_recipe({"a": "bad", "b": "recipe", "c": "none"}) == {}
    assert Lookup(store).by_content("key") is None
    assert not all_present(store, [layer.diff_id])
    assert LayerLibrary(store, Images(store)).known(layer) == layer
    records = read()
    assert (records.place("1"), records.before(step), records.expected()) == (None, "", {})
    assert records.earlier(records.preimage(step).recipe) is None
    assert records.made(step, 2.0)


def test_a_file_is_fetched_again_if_its_record_cannot_be_read(store: LmdbStore) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"file")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        for value in GARBAGE:
            store.commit(Batch(records=(("fetches", f"{url} ", value),)))
            assert HttpFiles(store).get(url, "").digest == Digest.of(b"file")
        server.shutdown()


@pytest.mark.parametrize("value", [b"\xff\xfe\x00", b"[]", b'{"version": 1}'])
def test_a_build_makes_again_what_it_cannot_read(program: Program, project: Path, value: bytes) -> None:
    rewrite(program.store, [table for table in TABLES if table != "names"], value)
    for command in (["plan", project, *program.base()], ["cache", "du"], ["image", "ls"]):
        program.call(*command).ok()
    program.build(project, "-t", "app:1", "-o", f"type=tar,dest={program.root}/out.tar").ok()
    assert len(program.build(project).ok().cached) == 4


def test_an_image_that_cannot_be_read_is_named_and_can_be_forgotten(program: Program, project: Path) -> None:
    rewrite(program.store, ["names"], b"\xff")
    child = program.project("FROM app:1\n", name="child")
    for ran in (program.build(child).failed(4), program.call("image", "inspect", "app:1").failed(4)):
        assert "of the image app:1 cannot be read" in ran.stderr
        assert "hint: forget it with: buildgraph image rm app:1" in ran.stderr
    assert "app:1 cannot be read" in program.call("image", "ls").ok().stderr
    program.call("image", "rm", "app:1").ok()
    assert program.call("image", "ls").ok().stderr == ""


# files that are gone


@pytest.mark.parametrize("lost", ["tar", "listing", "log"])
def test_a_result_of_which_something_is_gone_is_none(store: LmdbStore, lost: str) -> None:
    blobs = {name: name.encode() for name in ("tar", "listing", "log")}
    digests = {name: Digest.of(data) for name, data in blobs.items()}
    layer = Layer(f"sha256:{'0' * 64}", "content", digests["tar"], digests["listing"])
    result = Result(layer, digests["log"], 1.0, 1.0, "me")
    store.commit(
        Batch(
            blobs={digests[name]: data for name, data in blobs.items() if name != lost},
            records=(
                ("results", "key", encoding.canonical(result.to_json())), ("recipes", "recipe", b"key"),
                ("layers", layer.diff_id, encoding.canonical(layer.to_json())),
            ),
        )
    )  # fmt: skip
    assert Lookup(store).by_content("key") is None
    assert all_present(store, [layer.diff_id]) == (lost == "log")
    store.commit(Batch(blobs={digests[lost]: blobs[lost]}))
    assert Lookup(store).by_recipe({"node": "recipe"}) == {"node": result}
    assert all_present(store, [layer.diff_id])


def test_lost_files_are_made_again(program: Program, project: Path) -> None:
    for path in (program.store / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    assert program.statuses(project)["base.1"] == "miss"
    program.build(project, "-o", f"type=tar,dest={program.root}/out.tar").ok()
    assert len(program.build(project).ok().cached) == 4


def test_an_image_whose_layers_are_gone_is_named(program: Program, project: Path) -> None:
    """Its name must not be asked for at a registry: what is there under it is something else."""
    shutil.rmtree(program.store / "blobs")
    failed = program.build(program.project("FROM app:1\nRUN true\n", name="child")).failed(4)
    assert "layers of the image app:1 are gone from the store" in failed.stderr
    assert "1 | FROM app:1" in failed.stderr


# the commands on images


def test_a_further_name(program: Program, project: Path) -> None:
    program.call("image", "tag", "app:1", "example.com/team/app:2").ok()
    assert program.config("example.com/team/app:2") == program.config("app:1")
    rows = {line.split()[0]: line.split() for line in program.call("image", "ls").ok().stdout.splitlines()}
    assert rows["NAME"] == ["NAME", "ID", "PLATFORM", "LAYERS", "SIZE", "AGE"]
    assert rows["app:1"][1:5] == rows["example.com/team/app:2"][1:5]
    assert rows["app:1"][4].endswith("MB")
    child = program.project("FROM example.com/team/app:2\nRUN cat /app/f\n", name="child")
    assert program.build(child).ok().output("0.1") == ["f"]
    program.call("image", "rm", "app:1").ok()
    program.call("image", "inspect", "app:1").failed(2)
    program.call("image", "inspect", "example.com/team/app:2").ok()
    assert "no image nothere" in program.call("image", "tag", "nothere", "x").failed(2).stderr
    program.call("image", "tag", "example.com/team/app:2", f"x@sha256:{'0' * 64}").failed(2)
    assert program.call("image", "export", "example.com/team/app:2", "-o", f"type=local,dest={program.root}/files").ok().stdout == ""
    assert (program.root / "files/app/f").read_text() == "f\n"


def test_an_image_from_elsewhere_keeps_its_id_under_a_further_name(program: Program, project: Path) -> None:
    """Byte for byte: its config may hold what we do not know."""
    store = LmdbStore(str(program.store))
    images = Images(store)
    image = images.get("docker.io/library/app:1", Platform.here())
    assert image is not None
    _, key, value = images.record(image).records[0]
    config = json.dumps({**json.loads(image.config.to_json()), "unknown": [1, 2]}, indent=3).encode()
    record = encoding.canonical({**encoding.parse(value), "config": str(Digest.of(config))})
    store.commit(Batch(blobs={Digest.of(config): config}, records=(("names", key, record),)))
    store.close()
    program.call("image", "tag", "app:1", "app:2").ok()
    kept = LmdbStore(str(program.store))
    names = [encoding.parse(record)["config"] for _, record in kept.scan("names")]
    kept.close()
    assert names == [str(Digest.of(config))] * 2
