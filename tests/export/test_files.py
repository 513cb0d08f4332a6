"""The root filesystem as plain files: complete, and nothing outside of it touched."""

import contextlib
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from cache.entry import CHARACTER, FIFO, FILE, Entry
from cache.errors import EnvironmentProblem, UsageError
from compiler.export.built import BuiltImage
from tests.cache.layers import (
    Member,
    directory,
    file,
    hardlink,
    in_child,
    look,
    needs_root,
    opaque,
    scratch_file,
    symlink,
    trees,
    whiteout,
    without_directory_links,
)
from tests.export.workshop import Workshop, run, workshop

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def sample(shop: Workshop) -> BuiltImage:
    lower = shop.base_layer(
        directory("etc", mtime=11), file("etc/gone", b"x"), file("etc/name", b"base\n", mtime=5),
        directory("full", 0o700), file("full/a", b"a"), file("keep", b"k"), directory("tmp", 0o1777),
    )  # fmt: skip
    upper = shop.layer(
        directory("bin", 0o755, mtime=12), file("bin/su", b"#!" * 9, 0o4755, uid=3, gid=4, mtime=7,
            xattrs=(("security.capability", CAPABILITY),)),
        hardlink("bin/su2", "bin/su"), whiteout("etc/gone"), directory("full", 0o500, uid=5, mtime=13), opaque("full"),
        file("full/b", b"b" * (2 << 20)), symlink("link", "/etc/name"), hardlink("su3", "bin/su"),
    )  # fmt: skip
    return shop.image([lower, upper])


def check_sample(root: Path) -> None:
    seen = look(str(root))
    names = ["", "bin", "bin/su", "bin/su2", "etc", "etc/name", "full", "full/b", "keep", "link", "su3", "tmp"]
    assert sorted(seen) == names
    su = seen["bin/su"]
    assert (stat.S_IMODE(su.mode), su.uid, su.gid, su.mtime, su.links) == (0o4755, 3, 4, 7, 3)
    assert {os.stat(root / name).st_ino for name in ("bin/su", "bin/su2", "su3")} == {os.stat(root / "su3").st_ino}
    assert seen["link"].data == "/etc/name"
    assert (stat.S_IMODE(seen["full"].mode), seen["full"].uid, seen["full"].mtime) == (0o500, 5, 13)
    assert (seen["etc"].mtime, seen["bin"].mtime, stat.S_IMODE(seen["tmp"].mode)) == (11, 12, 0o1777)
    assert seen["etc/name"].data == b"base\n"


@needs_root
def test_a_new_directory_has_everything(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop)
    made = shop.export(f"type=local,dest={tmp_path}/deep/out", image)
    check_sample(tmp_path / "deep" / "out")
    assert look(str(tmp_path / "deep" / "out"))["bin/su"].xattrs == (("security.capability", CAPABILITY),)
    assert (made.digest, os.listdir(tmp_path / "deep")) == ("", ["out"])


@needs_root
def test_files_of_a_directory_are_replaced_and_others_stay(shop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = sample(shop)
    for _ in range(2):
        shop.export(f"{out}", image)
        check_sample(out)
    (out / "mine").write_text("mine")
    (out / "keep").write_text("changed")
    os.rmdir(out / "tmp")
    (out / "tmp").write_text("a file where a directory should be")
    (out / "link").unlink()
    (out / "link").mkdir()
    shop.export(f"{out}", image)
    assert (out / "mine").read_text() == "mine"
    (out / "mine").unlink()
    check_sample(out)


@needs_root
def test_a_directory_with_files_is_not_removed_for_a_file(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "out" / "keep").mkdir(parents=True)
    (tmp_path / "out" / "keep" / "work").write_text("of a week")
    with pytest.raises(EnvironmentProblem, match="'keep' is a directory with files"):
        shop.export(f"{tmp_path}/out", sample(shop))
    assert (tmp_path / "out" / "keep" / "work").read_text() == "of a week"
    assert not list((tmp_path / "out").glob(".buildgraph*"))


@needs_root
def test_no_symlink_leads_out(shop: Workshop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "name").write_text("secret")
    out = tmp_path / "out"
    out.mkdir()
    # In the destination: for a directory, a file, a directory's parent, a name that is taken apart later.
    (out / "etc").symlink_to(outside)
    (out / "keep").symlink_to(outside / "name")
    (out / "full").symlink_to("../outside")
    (out / "bin").symlink_to("/")
    (out / "su3").symlink_to(outside / "new")
    shop.export(f"{out}", sample(shop))
    check_sample(out)
    # In the image: one layer has a link, the next one writes through it.
    hostile = shop.image(
        [
            shop.base_layer(symlink("abs", str(outside)), symlink("self", "."), symlink("up", "../../../../outside")),
            shop.base_layer(file("abs/name", b"evil"), file("self/self/name", b"evil"), file("up/name", b"evil")),
        ]
    )
    shop.export(f"{out}", hostile)
    shop.export(f"{tmp_path}/fresh", hostile)
    assert (outside / "name").read_text() == "secret"
    assert os.listdir(outside) == ["name"]
    assert (tmp_path / "fresh" / str(outside).lstrip("/") / "name").read_bytes() == b"evil"


@needs_root
def test_devices_are_for_root_and_pipes_for_all(shop: Workshop, tmp_path: Path) -> None:
    image = shop.image(
        [shop.layer((Entry("null", CHARACTER, 0o666, major=1, minor=3), b""), (Entry("pipe", FIFO, 0o622), b""))]
    )
    shop.export(f"{tmp_path}/root", image)
    null = (tmp_path / "root" / "null").lstat()
    assert (null.st_rdev, stat.S_IMODE(null.st_mode)) == (os.makedev(1, 3), 0o666)
    assert stat.S_IMODE((tmp_path / "root" / "pipe").lstat().st_mode) == 0o622
    os.chmod(tmp_path, 0o777)
    for parent in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            os.chmod(parent, stat.S_IMODE(parent.stat().st_mode) | 0o011)
    members = [(Entry("d/pipe", FIFO, 0o622), b""), (Entry("null", CHARACTER, 0o666, major=1, minor=3), b"")]
    owned = shop.image([shop.layer(directory("d", 0o555, uid=7), file("d/a", b"a", 0o4711, uid=7), *members)])
    shop.library.rootfs(owned.layers)
    shop.library.open_tar(owned.layers[0])

    def as_nobody() -> list[str]:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        shop.export(f"{tmp_path}/nobody", owned)
        return shop.reports

    assert in_child(as_nobody) == ["1 device files were left out, which only root can make"]
    seen = look(str(tmp_path / "nobody"))
    assert sorted(seen) == ["", "d", "d/a", "d/pipe"]
    assert {(one.uid, one.gid) for one in seen.values()} == {(65534, 65534)}
    assert [stat.S_IMODE(seen[name].mode) for name in ("d", "d/a", "d/pipe")] == [0o555, 0o4711, 0o622]


@needs_root
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(lower=trees(), upper=trees())
def test_directory_and_archive_say_the_same(
    lower: list[Member], upper: list[Member], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("trees")

    def tame(members: list[Member]) -> list[Member]:
        # Files of ext4 have times until 2446; unpacking tools have trouble with attributes of other namespaces.
        return [(entry._replace(mtime=min(abs(entry.mtime), 1 << 33), xattrs=()), data) for entry, data in members]

    with workshop(place / "store") as shop:
        image = shop.image([shop.base_layer(*tame(lower)), shop.layer(*tame(upper))])
        shop.export(f"type=local,dest={place}/out", image)
        shop.export(f"type=tar,dest={place}/out.tar", image)
    (place / "unpacked").mkdir()
    run("tar", "-xpf", f"{place}/out.tar", "-C", f"{place}/unpacked", "--numeric-owner", "--delay-directory-restore")
    ours, theirs = (without_directory_links(look(f"{place}/{name}")) for name in ("out", "unpacked"))
    del ours[""], theirs[""]
    assert ours == theirs


def test_an_archive_is_the_same_each_time_and_readable(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop)
    shop.export(f"type=tar,dest={tmp_path}/a.tar", image)
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
        assert names == ["bin", "bin/su", "bin/su2", "etc", "etc/name", "full", "full/b", "keep", "link", "su3", "tmp"]
        assert [archive.getmember(name).linkname for name in ("bin/su2", "su3")] == ["bin/su", "bin/su"]
        assert archive.getmember("bin/su").mode == 0o4755
    code = "import os, sys; data = sys.stdin.buffer.read(); os.write(2, b'%d' % len(data))"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        assert reader.stderr is not None
        shop.export("-", image, stdout=reader.stdin.fileno())
        reader.stdin.close()
        assert reader.stderr.read() == b"%d" % (tmp_path / "a.tar").stat().st_size
    (tmp_path / "b.tar").write_bytes(b"")
    with open(tmp_path / "b.tar", "ab") as appended:
        shop.export("-", image, stdout=appended.fileno())
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_appending_descriptor_gets_holes_as_zeros(shop: Workshop, tmp_path: Path) -> None:
    with scratch_file() as fd:
        os.pwrite(fd, b"x", 8 << 20)
        size = (8 << 20) + 1
        layer, batch = shop.library.write_layer(lambda out: _sparse(out, fd, size))
    shop.store.submit(batch)
    image = shop.image([layer])
    shop.export(f"type=tar,dest={tmp_path}/a.tar", image)
    with open(tmp_path / "b.tar", "ab") as appended:
        shop.export("-", image, stdout=appended.fileno())
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert (tmp_path / "a.tar").stat().st_blocks * 512 < 1 << 20


def _sparse(out: int, source: int, size: int):  # type: ignore[no-untyped-def]
    from cache.layer_writer import LayerWriter

    writer = LayerWriter(out)
    writer.add_file(Entry("holes", FILE, 0o644, size=size), source)
    return writer.finish()


def test_a_reader_that_goes_away_and_a_file_in_the_way_are_said(shop: Workshop, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for kind in ("oci", "docker", "tar"):
            with pytest.raises(EnvironmentProblem, match="Broken pipe"):
                shop.export(f"type={kind},dest=-", sample(shop), stdout=writing)
    finally:
        os.close(writing)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a directory"):
        shop.export(f"{tmp_path}/file", sample(shop))
    with pytest.raises(UsageError, match="is a directory"):
        shop.export(f"type=tar,dest={tmp_path}", sample(shop))
