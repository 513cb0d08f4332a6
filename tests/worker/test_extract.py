"""Extraction makes the tree that the index describes, and nothing outside of it."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from cache.entry import CHARACTER, FILE, SYMLINK, Entry
from cache.errors import CorruptLayer, EnvironmentProblem
from cache.index import Index
from tests.cache.layers import (
    Member,
    directory,
    expected,
    file,
    hardlink,
    in_child,
    look,
    needs_root,
    opaque,
    scratch_file,
    trees,
    whiteout,
    without_directory_links,
    write,
)
from worker.extract import extract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = needs_root


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(members=trees())
def test_the_tree_is_what_the_index_says(members: list[Member], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    # Files of ext4 have times until 2446 and 4 KiB for all extended attributes.
    members = [(entry._replace(mtime=min(entry.mtime, 1 << 33)), data) for entry, data in members]
    with scratch_file() as fd:
        layer = write(fd, members)
        extract(layer.index, fd, str(root), userxattr=False, devices=True)
        assert without_directory_links(look(str(root))) == expected(layer, fd)


def test_set_id_bits_and_capabilities_survive_the_change_of_owner(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    with scratch_file() as fd:
        member = file("su", b"#!", 0o6755, uid=5, gid=6, xattrs=(("security.capability", capability),))
        extract(write(fd, [member]).index, fd, str(tmp_path), userxattr=False, devices=True)
    assert os.stat(tmp_path / "su").st_mode == stat.S_IFREG | 0o6755
    assert os.getxattr(tmp_path / "su", "security.capability") == capability


def test_without_rights_devices_are_empty_files(tmp_path: Path) -> None:
    with scratch_file() as fd:
        members: list[Member] = [
            directory("dev", xattrs=(("trusted.x", b"1"), ("user.y", b"2"))),
            opaque("dev"),
            (Entry("dev/null", CHARACTER, 0o666, major=1, minor=3), b""),
            whiteout("gone"),
        ]
        extract(write(fd, members).index, fd, str(tmp_path), userxattr=True, devices=False)
    seen = look(str(tmp_path))
    assert seen["dev/null"].mode == stat.S_IFREG | 0o666
    assert seen["dev"].xattrs == (("user.overlay.opaque", b"y"), ("user.y", b"2"))
    assert stat.S_ISCHR(seen["gone"].mode)
    assert seen["gone"].device == 0


@pytest.fixture
def deep() -> Iterator[str]:
    """A directory that is removed whatever its depth: pytest's own clean-up recurses, and fails in later runs too."""
    path = tempfile.mkdtemp()
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


def test_trees_may_be_deeper_than_open_files_allow(deep: str) -> None:
    members: list[Member] = []
    path = ""
    for _ in range(2500):
        path = f"{path}/d" if path else "d"
        members.append(directory(path, mtime=11))
    leaf = f"{path}/leaf"
    members += [file(leaf, b"deep", mtime=12), hardlink(f"{path}/other", leaf), hardlink("z", leaf)]

    def run() -> dict[str, tuple[int, bytes | str]]:
        with scratch_file() as fd:
            layer = write(fd, members)
            # Beyond what other tests of this process left open.
            most = 400 + max(map(int, os.listdir("/proc/self/fd")))
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            extract(layer.index, fd, deep, userxattr=False, devices=True)
            seen = look(deep)
            return {name: (seen[name].mtime, seen[name].data) for name in (path, leaf, "z")}

    seen = in_child(run)
    assert seen[path] == (11, b"")
    assert seen["z"] == seen[leaf] == (12, b"deep")


def test_symlinks_on_the_way_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    # No reader of ours makes such an index; it must not work even so.
    index = Index([Entry("a", SYMLINK, link=str(outside)), Entry("a/b", FILE, 0o644)])
    with scratch_file() as fd, pytest.raises((EnvironmentProblem, KeyError)):
        extract(index, fd, str(root), userxattr=False, devices=True)
    assert list(outside.iterdir()) == []


def test_what_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "f").symlink_to("/etc/hostname")
    with scratch_file() as fd, pytest.raises(EnvironmentProblem, match="cannot unpack 'f': File exists"):
        extract(Index([Entry("f", FILE, 0o644)]), fd, str(tmp_path), userxattr=False, devices=True)


def test_a_short_tar_is_noticed(tmp_path: Path) -> None:
    with scratch_file() as fd, pytest.raises(CorruptLayer, match="'f' reaches beyond the end"):
        extract(Index([Entry("f", FILE, size=5, offset=512)]), fd, str(tmp_path), userxattr=False, devices=True)


def test_the_target_must_be_a_directory(tmp_path: Path) -> None:
    with scratch_file() as fd, pytest.raises(EnvironmentProblem, match="cannot unpack into"):
        extract(Index([]), fd, str(tmp_path / "none"), userxattr=False, devices=True)
