"""A store that lost blobs, was cut short or holds garbage: made again where possible, else one message (I6)."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, cast

import pytest

from cache.errors import StoreProblem
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from cache.store import TABLES, Batch, Table

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"
GARBAGE = [b"\xff\xfe\x00", b"", b"{", b"[]", b"{}", b"null", b"7", b"[" * 100_000, b'{"version": 1}', b'"\\ud800"']
STEPS = BASE + "WORKDIR /app\nCOPY f f\nRUN echo ran > made && cat f\n"


def rewrite(store: Path, tables: tuple[Table, ...], value: bytes) -> int:
    """Overwrite every record of these tables; how many there were."""
    opened = LmdbStore(str(store))
    keys = [(table, key) for table in tables for key, _ in opened.scan(table)]
    opened.commit(Batch(records=tuple((table, key, value) for table, key in keys)))
    opened.close()
    return len(keys)


def built(program: Program) -> Path:
    project = program.project(STEPS, {"f": "f\n"})
    program.build(project, "-t", "app:1").ok()
    return project


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 5000, 8191, 8192, 40_000, -4096])
def test_a_database_that_was_cut_short(program: Program, size: int) -> None:
    project = built(program)
    data = program.store / "data.mdb"
    os.truncate(data, size if size >= 0 else data.stat().st_size + size)
    for command in (["build", project], ["plan", project], ["image", "ls"], ["cache", "du"]):
        if size == 0:
            program.call(*command).ok()  # an empty file is a new store
        else:
            failed = program.call(*command).failed(4)
            assert "data.mdb" in failed.stderr or "not an LMDB file" in failed.stderr
            assert "hint: " in failed.stderr


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


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("table", ["recipes", "results", "layers", "places", "fetches", "forms"])
def test_garbage_that_can_be_made_again_counts_as_missing(program: Program, table: str, value: bytes) -> None:
    project = built(program)
    rewrite(program.store, (cast("Table", table),), value)
    program.call("plan", project, *program.base()).ok()
    program.call("cache", "du").ok()
    program.call("image", "ls").ok()
    program.build(project, "-t", "app:1", "-o", f"type=oci,dest={program.root}/out.tar").ok()
    assert len(program.build(project).ok().cached) == 4


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("table", TABLES)
def test_garbage_anywhere_is_no_traceback(program: Program, table: Table, value: bytes) -> None:
    if table in ("stats", "outputs") and value in (b"[]", b"null", b"7", b"{}", b'{"version": 1}', b'"\\ud800"', b""):
        pytest.xfail("what the worker reads is looked at by the worker")
    project = built(program)
    rewrite(program.store, (table,), value)
    (project / "f").write_text("new\n")
    for command in (["plan", project, *program.base()], ["cache", "du"], ["image", "ls"], ["build", project, *program.base()]):
        ran = program.call(*command)
        assert ran.code in (0, 4), ran.stderr
        assert "Traceback" not in ran.stderr


def test_an_image_that_cannot_be_read_is_named_and_can_be_forgotten(program: Program) -> None:
    built(program)
    assert rewrite(program.store, ("names",), b"\xff") == 1
    child = program.project("FROM app:1\n", name="child")
    for ran in (program.build(child).failed(4), program.call("image", "inspect", "app:1").failed(4)):
        assert "of the image app:1 cannot be read" in ran.stderr
        assert "hint: forget it with: buildgraph image rm app:1" in ran.stderr
    listed = program.call("image", "ls").ok()
    assert "app:1 cannot be read" in listed.stderr
    program.call("image", "rm", "app:1").ok()
    assert program.call("image", "ls").ok().stderr == ""


def test_lost_files_are_made_again(program: Program) -> None:
    """The base's tar and listing are files of their own; so is a long log."""
    project = program.project(BASE + "RUN seq 1 20000\nRUN echo x > /y\n")
    program.build(project, "-t", "app:1").ok()
    for path in (program.store / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    statuses = program.statuses(project)
    assert "miss" in (statuses["base.1"], statuses["1.1"])
    assert "1.1" in program.build(project, "-o", f"type=tar,dest={program.root}/out.tar").executed


def test_an_image_whose_layers_are_gone_is_named(program: Program) -> None:
    """Its name must not be asked for at a registry: what is there under it is something else."""
    built(program)
    shutil.rmtree(program.store / "blobs")
    child = program.project("FROM app:1\nRUN true\n", name="child")
    failed = program.build(child).failed(4)
    assert "layers of the image app:1 are gone from the store" in failed.stderr
    assert "1 | FROM app:1" in failed.stderr


# the commands on images


def test_a_further_name(program: Program) -> None:
    project = built(program)
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
    assert project


def test_an_image_from_elsewhere_keeps_its_id_under_a_further_name(program: Program) -> None:
    """Byte for byte: its config may hold what we do not know."""
    from test_hostile_images import FILE, make_layout, make_tar

    layout = make_layout(program.root / "layout", [make_tar([("f", FILE, b"x")])], {"Unknown": [1, 2]})
    project = program.project("FROM img\n")
    program.build(project, "--build-context", f"img={layout}", "-t", "mine:1").ok()
    program.call("image", "tag", "mine:1", "mine:2").ok()
    ids = {line.split()[1] for line in program.call("image", "ls").ok().stdout.splitlines()[1:]}
    assert len(ids) == 1
    assert json.loads(program.call("image", "inspect", "mine:2").ok().stdout)
    assert Platform.here()
