"""`cache verify`: each kind of damage is found and named, and after a repair all is well and can be built again."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import lmdb
import pytest

from cache import encoding
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from cache.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from program import Program

    from cache.store import Table
    from cache.verify import Verified

DOCKERFILE = (
    "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"
    "RUN echo said; dd if=/dev/zero of=/big bs=64k count=4 2>/dev/null\nCOPY f /f\n"
)


def files(program: Program) -> list[Path]:
    return sorted(path for path in (program.store / "blobs").rglob("*") if path.is_file())


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = change(path.read_bytes())
    path.unlink()
    path.write_bytes(data)


def flip(data: bytes) -> bytes:
    return data[:-600] + bytes([data[-600] ^ 1]) + data[-599:]


def inline(program: Program, change: Callable[[bytes], bytes | None]) -> None:
    """Change the first small blob, or remove it."""
    with lmdb.open(str(program.store), max_dbs=32, map_size=1 << 30) as env:
        blobs = env.open_db(b"blobs", create=False)
        with env.begin(write=True, db=blobs) as txn:
            cursor = txn.cursor()
            assert cursor.first()
            key, value = bytes(cursor.key()), change(bytes(cursor.value()))
            txn.delete(key)
            if value is not None:
                txn.put(key, value)


def record(program: Program, table: Table, change: Callable[[bytes], bytes]) -> None:
    store = LmdbStore(str(program.store))
    key, value = store.scan(table)[0]
    store.commit(Batch(records=((table, key, change(value)),)))
    store.close()


def other_diff_id(value: bytes) -> bytes:
    parsed = encoding.parse(value)
    parsed["layer"][0] = "sha256:" + "0" * 64
    return encoding.canonical(parsed)


def other_content(value: bytes) -> bytes:
    parsed = encoding.parse(value)
    parsed[1] = "0" * 64
    return encoding.canonical(parsed)


def other_listing(value: bytes) -> bytes:
    parsed = encoding.parse(value)
    parsed[3] = parsed[2]
    return encoding.canonical(parsed)


DAMAGES: dict[str, tuple[Callable[[Program], object], str]] = {
    "a file with other bytes": (lambda p: rewrite(files(p)[0], flip), "does not have the bytes"),
    "a file cut short": (lambda p: rewrite(files(p)[0], lambda data: data[:-1]), "does not have the bytes"),
    "an empty file": (lambda p: rewrite(files(p)[0], lambda _: b""), "does not have the bytes"),
    "a file that is gone": (lambda p: files(p)[0].unlink(), "is gone"),
    "a stray file": (lambda p: (p.store / "blobs/notes.txt").write_text("x"), "notes.txt is no blob"),
    "a stray file in a folder": (lambda p: (files(p)[0].parent / "x.tmp").write_text("x"), "x.tmp is no blob"),
    "a small blob with other bytes": (lambda p: inline(p, lambda data: data + b"x"), "does not have the bytes"),
    "a small blob that is gone": (lambda p: inline(p, lambda _: None), "is gone"),
    "a result that is no JSON": (lambda p: record(p, "results", lambda _: b"{"), "results "),
    "a result of another version": (lambda p: record(p, "results", lambda v: v.replace(b'"version":1', b'"version":7')), "version 7"),
    "a result with another diff_id": (lambda p: record(p, "results", other_diff_id), "sha256 of its tar"),
    "a layer that is no JSON": (lambda p: record(p, "layers", lambda _: b"\xff"), "layers "),
    "a layer with another content": (lambda p: record(p, "layers", other_content), "says something else"),
    "a layer with another listing": (lambda p: record(p, "layers", other_listing), "listing cannot be read"),
    "an output that is no JSON": (lambda p: record(p, "outputs", lambda _: b"[]"), "outputs "),
    "an image that is no JSON": (lambda p: record(p, "names", lambda _: b"null"), "names "),
    "a build that cannot be read": (lambda p: record(p, "builds", lambda _: b"x"), "builds "),
    "a use that cannot be read": (lambda p: record(p, "uses", lambda _: b"x"), "uses "),
}


def read_again(program: Program, *, repair: bool = False) -> Verified:
    store = LmdbStore(str(program.store))
    try:
        return verify(store, repair=repair)
    finally:
        store.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Program:
    from program import Program

    program = Program(tmp_path_factory.mktemp("verify"), busybox)
    program.build(program.project(DOCKERFILE, {"f": "x"}), "-t", "app:1").ok()
    assert read_again(program).problems == ()
    return program


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_said_and_repaired(built: Program, program: Program, damage: str) -> None:
    shutil.copytree(built.store, program.store)
    do, words = DAMAGES[damage]
    do(program)
    found = read_again(program).problems
    assert any(words in problem.text for problem in found), found
    assert [problem.text for problem in read_again(program).problems] == [problem.text for problem in found], "nothing is changed"
    assert read_again(program, repair=True).problems
    assert read_again(program).problems == ()
    # What was dropped is made again, and nothing else was lost with it.
    program.build(built.root / "project", "-t", "app:1").ok()
    assert read_again(program).problems == ()
    assert program.config("app:1")["config"] == built.config("app:1")["config"]


def test_the_command_says_each_problem_in_a_line(program: Program) -> None:
    project = program.project(DOCKERFILE, {"f": "x"})
    program.build(project).ok()
    assert "all is well" in program.call("cache", "verify").ok().stdout
    rewrite(files(program)[0], flip)
    said = program.call("cache", "verify").failed(4).stdout.splitlines()
    assert said[0].startswith("wrong: blob ")
    assert "--repair" in said[-1]
    assert "dropped" in program.call("cache", "verify", "--repair").ok().stdout
    assert "all is well" in program.call("cache", "verify").ok().stdout
    assert program.build(project).ok().executed
    assert program.build(project).ok().executed == []


def test_what_a_kill_leaves_is_no_damage(program: Program) -> None:
    program.build(program.project(DOCKERFILE, {"f": "x"})).ok()
    data = os.urandom(100_000)
    hash_ = Digest.of(data).hash
    orphan = program.store / "blobs" / hash_[:2] / hash_[2:]
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(data)
    dead = program.store / "runs/1-abc"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "tar-1").write_bytes(data)
    said = program.call("cache", "verify").ok().stdout
    assert "belonged to no record" in said
    assert "scratch space of 1 builds" in said
    assert not orphan.exists()
    assert not dead.exists()
    assert "belonged" not in program.call("cache", "verify").ok().stdout


def test_everything_in_a_fresh_store_is_well(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path))
    verified = verify(store)
    assert (verified.problems, verified.blobs, verified.records) == ((), 0, 0)
    store.close()
