"""EROFS images as the running kernel reads them."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings

from cache.entry import DIRECTORY, FILE, SYMLINK, Entry
from cache.erofs import build
from cache.errors import CorruptLayer, EnvironmentProblem
from cache.index import Index
from cache.layer_writer import LayerWriter
from cache.rootfs import Rootfs
from tests.cache.layers import (
    Member,
    directory,
    expected,
    file,
    hardlink,
    look,
    mounted,
    needs_root,
    opaque,
    overlaid,
    scratch_file,
    symlink,
    trees,
    whiteout,
    without_directory_links,
    write,
)

pytestmark = needs_root


def check(members: list[Member]) -> None:
    with scratch_file() as fd:
        layer = write(fd, members)
        image = build(layer.index, layer.blob.size)
        assert without_directory_links(mounted(image, fd, look)) == expected(layer, fd)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(trees())
def test_the_kernel_sees_what_the_index_says(members: list[Member]) -> None:
    check(members)


def test_all_kinds_of_metadata() -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    acl = bytes.fromhex("0200000001000700ffffffff020005000100000004000500ffffffff10000500ffffffff20000500ffffffff")
    check(
        [
            directory("", 0o1755, mtime=5),
            directory("d", 0o2750, uid=4_000_000_000, gid=3_000_000_000, mtime=-7),
            opaque("d"),
            file("d/kept", b"x" * 5000, 0o4755, xattrs=(("security.capability", capability), ("user.k", b""))),
            whiteout("e/gone"),
            file("f", b"0123", 0o644, mtime=1 << 40, xattrs=(("trusted.t", b"v" * 4000), ("user.z", b"\0\xff"))),
            symlink("l", "a" * 4000),
            symlink("m", "b" * 447),
            symlink("n", "b" * 448),
            symlink("o", "b" * 449),
            hardlink("p/q", "d/kept"),
            file("y" * 255, b""),
        ]
    )
    with scratch_file() as fd:
        layer = write(fd, [file("f", b"x", 0o757, xattrs=(("system.posix_acl_access", acl),))])
        seen = mounted(build(layer.index, layer.blob.size), fd, look)
        assert ("system.posix_acl_access", acl) in seen["f"].xattrs


def test_directories_count_their_subdirectories() -> None:
    with scratch_file() as fd:
        layer = write(fd, [directory("a"), directory("a/b"), directory("a/c"), file("a/d")])
        seen = mounted(build(layer.index, layer.blob.size), fd, look)
    assert (seen[""].links, seen["a"].links, seen["a/b"].links) == (3, 4, 2)


def test_a_directory_of_many_names() -> None:
    count = 100_500
    index = Index([Entry(f"d/file-{n}", SYMLINK, 0o777, link="x") for n in range(count)])
    with scratch_file() as fd:
        os.ftruncate(fd, 512)

        def use(root: str) -> tuple[set[str], str]:
            return set(os.listdir(f"{root}/d")), os.readlink(f"{root}/d/file-77777")

        names, link = mounted(build(index, 512), fd, use)
    assert names == {f"file-{n}" for n in range(count)}
    assert link == "x"


def test_a_file_of_more_than_4_gib() -> None:
    size = (5 << 30) + 123
    with scratch_file() as fd:
        layer = Index([Entry("big", FILE, 0o644, size=size, offset=512)])
        os.ftruncate(fd, 512 + size + 1024)
        os.pwrite(fd, b"near", 512 + (4 << 30) - 2)
        os.pwrite(fd, b"end", 512 + size - 3)

        def use(root: str) -> tuple[int, bytes, bytes]:
            with open(f"{root}/big", "rb") as big:
                return (
                    os.fstat(big.fileno()).st_size,
                    os.pread(big.fileno(), 6, (4 << 30) - 3),
                    os.pread(big.fileno(), 9, size - 3),
                )

        assert mounted(build(layer, 512 + size + 1024), fd, use) == (size, b"\0near\0", b"end")


def test_deep_trees() -> None:
    depth = 3000
    members: list[Member] = []
    path = ""
    for _ in range(depth):
        path = f"{path}/d" if path else "d"
        members.append(directory(path))
    check([*members, file(f"{path}/leaf", b"deep")])


def test_whiteouts_are_what_overlayfs_wants() -> None:
    with scratch_file() as fd:
        layer = write(fd, [whiteout("a/b")])
        seen = mounted(build(layer.index, layer.blob.size), fd, look)
    assert stat.S_ISCHR(seen["a/b"].mode)
    assert seen["a/b"].device == 0


def test_the_opaque_mark_can_have_another_name() -> None:
    with scratch_file() as fd:
        layer = write(fd, [directory("d"), opaque("d")])
        seen = mounted(build(layer.index, layer.blob.size, opaque_xattr="user.overlay.opaque"), fd, look)
    assert seen["d"].xattrs == (("user.overlay.opaque", b"y"),)


def test_the_same_index_gives_the_same_image() -> None:
    index = Index([Entry("d", DIRECTORY, 0o755), Entry("d/l", SYMLINK, 0o777, link="x")])
    assert build(index, 0) == build(Index(reversed(index.entries)), 0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(CorruptLayer, match="beyond the end"):
        build(Index([Entry("f", FILE, size=600, offset=512)]), 1024)
    with pytest.raises(CorruptLayer, match="too long"):
        build(Index([Entry("é" * 128, DIRECTORY)]), 0)
    with pytest.raises(EnvironmentProblem, match="extended attribute"):
        build(Index([Entry("f", DIRECTORY, xattrs=(("com.apple.x", b""),))]), 0)


def test_empty_layers_mount() -> None:
    with scratch_file() as fd:
        layer = LayerWriter(fd).finish()
        seen = mounted(build(layer.index, layer.blob.size), fd, look)
    assert list(seen) == [""]
    assert seen[""].mode == stat.S_IFDIR | 0o755


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(trees(), trees(), trees())
def test_overlayfs_merges_layers_as_rootfs_does(bottom: list[Member], middle: list[Member], top: list[Member]) -> None:
    with ExitStack() as stack:
        layers: list[tuple[bytes, int]] = []
        merged: list[Index] = []
        for members in (bottom, middle, top):
            fd = stack.enter_context(scratch_file())
            layer = write(fd, members)
            index = layer.index.rebased(Rootfs(merged)) if follows_no_symlink(layer.index, merged) else Index([])
            merged.append(index)
            layers.append((build(index, layer.blob.size), fd))
        seen = overlaid(layers, look)
    rootfs = Rootfs(merged)
    expected = {entry.path: entry for entry, _ in rootfs.walk()}
    assert set(seen) == set(expected)
    for path, entry in expected.items():
        if path:
            found = seen[path]
            assert (stat.S_IMODE(found.mode), found.uid, found.gid, found.mtime) == (
                entry.mode, entry.uid, entry.gid, entry.mtime
            )  # fmt: skip
            assert (found.data if entry.kind == SYMLINK else "") == entry.link


def follows_no_symlink(index: Index, lower: list[Index]) -> bool:
    """Most symlinks of arbitrary trees lead nowhere, or below a file; other tests have those that lead somewhere."""
    return all((found := Rootfs(lower).lookup(path)) is None or found[0].kind != SYMLINK for path in index.implied)
