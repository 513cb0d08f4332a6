"""Where mounts go, and the stubs for mount points that an image does not have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cache.entry import DIRECTORY, FILE, SYMLINK, Entry
from cache.errors import DefinitionError
from cache.index import Index
from cache.rootfs import Rootfs
from tests.cache.layers import needs_root
from worker.mount_points import MountPoint, Stub, make_stubs, plan_stubs, real_target

if TYPE_CHECKING:
    from pathlib import Path

ETC = Entry("etc", DIRECTORY, 0o750, 3, 4, 1_600_000_000)
ROOTFS = Rootfs(
    [
        Index(
            [
                ETC,
                Entry("etc/hosts", FILE, 0o644),
                Entry("data", SYMLINK, 0o777, link="/srv/data"),
                Entry("srv", DIRECTORY, 0o755),
                Entry("up", SYMLINK, 0o777, link="../../etc"),
                Entry("top", SYMLINK, 0o777, link="/"),
            ]
        )
    ]
)


def plan(*targets: str) -> list[Stub]:
    """A trailing slash says directory."""
    return list(plan_stubs(ROOTFS, [MountPoint(target.rstrip("/"), target.endswith("/")) for target in targets]))


def test_what_is_there_needs_nothing() -> None:
    assert plan("/etc/", "/etc/hosts", "/srv/") == []


def test_a_missing_directory_with_its_parents() -> None:
    assert plan("/var/cache/apt/") == [Stub("var", True, None), Stub("var/cache", True, None), Stub("var/cache/apt", True, None)]


def test_parents_that_exist_come_with_their_own_look() -> None:
    assert plan("/etc/resolv.conf") == [Stub("etc", True, ETC), Stub("etc/resolv.conf", False, None)]


def test_several_points_share_parents_and_come_parents_first() -> None:
    stubs = plan("/run/secrets/b", "/run/secrets/a", "/run/")
    assert stubs == [Stub("run", True, None), Stub("run/secrets", True, None), Stub("run/secrets/a", False, None), Stub("run/secrets/b", False, None)]


def test_symlinks_of_the_image_are_followed_inside_of_it() -> None:
    assert [stub.path for stub in plan("/data/x/")] == ["srv", "srv/data", "srv/data/x"]
    assert real_target(ROOTFS, "/data/x") == "/srv/data/x"
    assert real_target(ROOTFS, "/up/hosts") == "/etc/hosts"
    assert real_target(ROOTFS, "/../../etc") == "/etc"


@pytest.mark.parametrize("target", ["/etc", "/etc/hosts/", "/etc/hosts/below", "/etc/hosts/below/"])
def test_what_stands_in_the_way_is_an_error(target: str) -> None:
    with pytest.raises(DefinitionError, match="cannot mount at /etc"):
        plan(target)


@pytest.mark.parametrize("target", ["/", "/..", "/top", "/etc/.."])
def test_nothing_is_mounted_at_the_root(target: str) -> None:
    with pytest.raises(DefinitionError, match="that is the root"):
        real_target(ROOTFS, target)


@needs_root
def test_stubs_look_as_the_image_does(tmp_path: Path) -> None:
    target = tmp_path / "stubs"
    root = Entry("", DIRECTORY, 0o711, 1, 2, 1_500_000_000, xattrs=(("user.x", b"1"),))
    old = os.umask(0o077)
    try:
        make_stubs(str(target), plan("/etc/resolv.conf", "/var/x/"), root)
    finally:
        os.umask(old)
    etc, top = (target / "etc").stat(), target.stat()
    assert (etc.st_mode & 0o7777, etc.st_uid, etc.st_gid, etc.st_mtime) == (0o750, 3, 4, 1_600_000_000)
    assert (top.st_mode & 0o7777, top.st_uid, top.st_gid, top.st_mtime) == (0o711, 1, 2, 1_500_000_000)
    assert os.getxattr(target, "user.x") == b"1"
    assert (target / "etc/resolv.conf").read_bytes() == b""
    assert (target / "var/x").is_dir()
