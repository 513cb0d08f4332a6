"""Snapshots of cache mounts: what is in them, what is not, and what a new mount holds that begins with one."""

from __future__ import annotations

import os
import socket
import stat
import time
from typing import TYPE_CHECKING

import pytest

from cache.entry import CHARACTER, DIRECTORY, Entry
from cache.errors import CorruptLayer
from cache.run_dir import remove_tree
from tests.cache.layers import directory, file, needs_root, opaque, scratch_file, whiteout, write
from worker.cache_mounts import in_namespace, mount_key, open_cache, unused
from worker.mount_snapshot import BLOCK, look, pack, unpack
from worker.operation import Mount

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root
MOUNT = Mount("cache", "/c", id="deps", mode=0o750, uid=3, gid=4)


def seen(root: Path) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(root))] = status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime)
    return found


def test_a_new_mount_holds_what_the_other_did(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "d").mkdir(parents=True)
    (old / "d/f").write_bytes(b"content")
    (old / "d/program").write_bytes(b"x" * 100_000)
    os.chown(old / "d/f", 5, 6)
    (old / "d/program").chmod(0o4755)
    (old / "d/again").hardlink_to(old / "d/f")
    (old / "link").symlink_to("/etc/passwd")
    os.utime(old / "d", (1_600_000_000, 1_600_000_000))
    before = seen(old)
    with socket.socket(socket.AF_UNIX) as server, scratch_file() as fd:
        server.bind(str(old / "socket"))
        os.mknod(old / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(old / "whiteout", stat.S_IFCHR, 0)
        (old / ".wh.f").write_text("removes nothing here")
        (old / ".wh.d").mkdir()
        (old / ".wh.d/f").write_text("")
        new.mkdir()
        unpack(pack(str(old), fd).index, fd, str(new), MOUNT)
    assert seen(new) == before
    assert (new / "d/again").samefile(new / "d/f")
    assert (new / "d/f").read_bytes() == b"content"
    status = new.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 3, 4), "as any new one of this mount"


@pytest.mark.parametrize(
    "members",
    [
        [file("a"), whiteout("b")],
        [directory("d"), opaque("d")],
        [file("a"), (Entry("null", CHARACTER, 0o666, major=1, minor=3), b"")],
    ],
)
def test_a_layer_that_is_no_snapshot_is_refused_and_leaves_nothing(tmp_path: Path, members: list[tuple[Entry, bytes]]) -> None:
    new = tmp_path / "new"
    new.mkdir()
    with scratch_file() as fd:
        index = write(fd, members).index
        with pytest.raises(CorruptLayer):
            unpack(index, fd, str(new), MOUNT)
    assert list(new.iterdir()) == []


def test_one_that_ends_in_the_middle_leaves_an_empty_mount(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    with scratch_file() as fd:
        index = write(fd, [file("a", b"1"), file("b", b"2" * 100_000)]).index
        os.ftruncate(fd, 4096)
        with pytest.raises(CorruptLayer):
            unpack(index, fd, str(new), MOUNT)
    assert list(new.iterdir()) == []
    assert stat.S_IMODE(new.stat().st_mode) == 0o750


def test_every_change_is_seen_without_reading_a_file(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d/f").write_bytes(b"12345")
    marks = [look(str(root), 1 << 20)]
    assert look(str(root), 1 << 20) == marks[0]
    assert marks[0].bytes == 5 + 2 * BLOCK
    for change in (
        lambda: (root / "d/f").write_bytes(b"54321"),
        lambda: (root / "d/f").chmod(0o600),
        lambda: os.chown(root / "d", 1, 1),
        lambda: (root / "d/f").rename(root / "d/g"),
        lambda: (root / "d/g").unlink(),
    ):
        time.sleep(0.02)  # more than a tick of the clock that older kernels take the time of a change from
        change()
        marks.append(look(str(root), 1 << 20))
    assert len({each.mark for each in marks}) == len(marks)


def test_it_looks_into_directories_as_deep_as_a_step_makes_them(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    before = look(str(tmp_path), 1 << 30)
    assert before.bytes == 1200 * BLOCK
    deep = tmp_path / "/".join(["d"] * 1200)
    (deep / "new").write_text("x")
    after = look(str(tmp_path), 1 << 30)
    remove_tree(str(tmp_path / "d"))  # which pytest could not
    assert after.mark != before.mark


def test_it_stops_looking_at_what_is_too_much(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(10):
        (tmp_path / f"a/{number}").touch()
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    assert 1 << 40 < look(str(tmp_path), 1 << 30).bytes < (1 << 40) + 5 * BLOCK


@pytest.mark.parametrize("sharing", ["shared", "locked", "private"])
def test_a_mount_is_read_while_no_step_uses_it_and_none_begins_meanwhile(tmp_path: Path, sharing: str) -> None:
    mount, store = MOUNT._replace(sharing=sharing), str(tmp_path)
    with unused(store, mount) as none_yet:
        assert none_yet is None
    assert not (tmp_path / "mounts").exists(), "looking makes nothing"
    step = open_cache(store, mount, lambda: False)
    assert step is not None
    with unused(store, mount) as busy:
        assert busy is None
    step.release()
    with unused(store, mount) as free:
        assert free == step.path
        tries = iter((False, False, True))
        late = open_cache(store, mount, lambda: next(tries))
        assert late is None or sharing == "private"
        if late is not None:
            late.release()
    again = open_cache(store, mount, lambda: False)
    assert again is not None
    again.release()


def test_mounts_of_namespaces_are_apart_and_named_alike_by_who_knows_only_their_keys() -> None:
    own = mount_key(MOUNT)
    theirs = mount_key(MOUNT._replace(id="team/a\0deps"))
    assert theirs == in_namespace("team/a", own)
    assert in_namespace("", own) == own
    assert len({own, theirs, in_namespace("team/b", own)}) == 3


def test_directories_alone_are_kept(tmp_path: Path) -> None:
    (tmp_path / "old/empty").mkdir(parents=True)
    with scratch_file() as fd:
        entries = pack(str(tmp_path / "old"), fd).index.entries
    assert [(entry.path, entry.kind) for entry in entries] == [("empty", DIRECTORY)]
