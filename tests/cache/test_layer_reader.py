"""Foreign tars: all dialects are read, all tricks are refused."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import CorruptLayer
from cache.index import Index
from cache.layer_reader import import_layer, read_members
from cache.tar_header import TarHeaders, padding, pax_record
from tests.cache.layers import Member, scratch_file, trees, write

if TYPE_CHECKING:
    from cache.layer_writer import LayerTar

END = bytes(1024)
LONG_XATTR = pax_record(b"SCHILY.xattr.user.a", bytes(65536))


def member(
    name: str | bytes, flag: bytes = b"0", data: bytes = b"", link: str = "", size: int | None = None, **more: Any
) -> bytes:
    raw = name if isinstance(name, bytes) else name.encode()
    header = TarHeaders().pack(
        raw,
        flag,
        more.pop("mode", 0o644),
        more.pop("uid", 0),
        more.pop("gid", 0),
        more.pop("mtime", 0),
        len(data) if size is None else size,
        link=link.encode(),
        **more,
    )
    return header + data + padding(len(data))


def extension(flag: bytes, body: bytes) -> bytes:
    return member("ext", flag, body)


def read(*parts: bytes) -> LayerTar:
    with scratch_file() as fd:
        return import_layer([b"".join(parts)], fd)


def index_of(*parts: bytes) -> Index:
    return read(*parts, END).index


def kinds(index: Index) -> dict[str, str]:
    return {entry.path: entry.kind for entry in index.entries}


def refused(pattern: str, *parts: bytes) -> None:
    with pytest.raises(CorruptLayer, match=pattern):
        index_of(*parts)


def patched(header: bytes, at: int, value: bytes) -> bytes:
    """A header with other bytes and the checksum that fits them."""
    changed = bytearray(header)
    changed[at : at + len(value)] = value
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(trees(), st.integers(37, 2000))
def test_what_the_writer_wrote_is_read_back(members: list[Member], cut: int) -> None:
    with scratch_file() as fd, scratch_file() as copy:
        layer = write(fd, members)
        data = os.pread(fd, layer.blob.size, 0)
        assert import_layer((data[at : at + cut] for at in range(0, len(data), cut)), copy) == layer
        assert os.pread(copy, layer.blob.size + 1, 0) == data


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_by_tarfile(dialect: int) -> None:
    long = "l" * 60 + "/" + "m" * (30 if dialect == tarfile.USTAR_FORMAT else 200)
    target = "t" * (90 if dialect == tarfile.USTAR_FORMAT else 300)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect, encoding="utf-8") as tar:
        for kind, name, more in (
            (tarfile.DIRTYPE, "./", {"mode": 0o755}),
            (tarfile.REGTYPE, f"./{long}", {"size": 3, "mtime": 1_700_000_000, "uid": 1000}),
            (tarfile.SYMTYPE, "/abs", {"linkname": target}),
            (tarfile.LNKTYPE, "hard", {"linkname": f"./{long}", "mtime": 1_700_000_000, "uid": 1000}),
            (tarfile.CHRTYPE, "null", {"devmajor": 1, "devminor": 3}),
            (tarfile.BLKTYPE, "disk", {"devmajor": 8, "devminor": 300}),
            (tarfile.FIFOTYPE, "é/fifo", {}),
            (tarfile.CONTTYPE, "cont", {"size": 3}),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"abc") if info.size else None)
    index = read(buffer.getvalue()).index
    assert kinds(index) == {
        "": DIRECTORY, long: HARDLINK, "abs": SYMLINK, "hard": FILE, "null": CHARACTER, "disk": BLOCK, "é/fifo": FIFO,
        "cont": FILE,
    }  # fmt: skip
    # The first name in order of path is the file, whichever name the tar gave the data.
    file = index.get("hard")
    assert file is not None
    assert (file.uid, file.mtime, file.size, file.digest) == (1000, 1_700_000_000, 3, blake3(b"abc").hexdigest())
    abs_ = index.get("abs")
    assert abs_ is not None
    assert abs_.link == target
    assert index.implied == (long.partition("/")[0], "é")


def test_pax_records_overrule_the_header() -> None:
    records = b"".join(
        [
            pax_record(b"path", "ü/файл".encode()),
            pax_record(b"mtime", b"-1.5"),
            pax_record(b"uid", b"3000000000"),
            pax_record(b"size", b"2"),
            pax_record(b"SCHILY.xattr.user.k", b"a=b\n"),
            pax_record(b"SCHILY.xattr.com.apple.x", b"1"),
            pax_record(b"SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            pax_record(b"comment", b"x"),
        ]
    )
    header = member("short", size=0)
    index = index_of(
        extension(b"g", pax_record(b"gid", b"77")), extension(b"x", records), header, b"ab" + bytes(510), member("z")
    )
    first, second = index.entries
    digest = blake3(b"ab").hexdigest()
    xattrs = (("user.k", b"a=b\n"),)
    assert first == Entry("z", FILE, 0o644, 0, 77, 0, 0, first.offset, blake3(b"").hexdigest())
    assert second == Entry("ü/файл", FILE, 0o644, 3_000_000_000, 77, -2, 2, 2560, digest, xattrs=xattrs)


def test_gnu_long_names_and_numbers() -> None:
    name, link = "n" * 120 + "/" + "o" * 120, "k" * 200
    header = patched(member("cut", b"2"), 108, b"\x80\0\0\0" + (2_500_000_000).to_bytes(4, "big"))
    header = patched(header, 136, b"\xff" * 11 + b"\xf6")
    index = index_of(extension(b"L", name.encode() + b"\0"), extension(b"K", link.encode() + b"\0"), header)
    assert index.entries == (Entry(name, SYMLINK, 0o777, 2_500_000_000, 0, -10, link=link),)


def test_v7_directories_end_in_a_slash() -> None:
    header = patched(member("d/", b"\0"), 257, bytes(255))
    assert kinds(index_of(header)) == {"d": DIRECTORY}


def test_signed_checksums() -> None:
    header = bytearray(member("é"))
    signed = sum(header[:148] + b" " * 8 + header[156:512]) - 512
    header[148:156] = b"%06o\0 " % signed
    assert kinds(index_of(bytes(header))) == {"é": FILE}


def test_an_archive_may_end_without_its_end() -> None:
    assert kinds(read(member("f")).index) == {"f": FILE}
    assert read(b"").index.entries == ()


def test_what_follows_the_end_belongs_to_the_bytes() -> None:
    data = member("f") + END + b"anything at all"
    with scratch_file() as fd:
        layer = import_layer([data[:700], b"", data[700:]], fd)
        assert os.pread(fd, 5000, 0) == data
    assert layer.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert layer.blob == (blake3(data).hexdigest(), len(data))


def test_the_last_of_two_entries_counts() -> None:
    assert index_of(member("f", data=b"old"), member("./f", data=b"newer")).entries[0].size == 5
    assert kinds(index_of(member("x"), member("x/", b"5"), member("x/y"))) == {"x": DIRECTORY, "x/y": FILE}
    assert kinds(index_of(member("x/", b"5"), member("x/y"), member("x"))) == {"x": FILE}
    again = index_of(member("x/", b"5", mode=0o700), member("x/y"), member("x/", b"5", mode=0o711))
    assert again.entries[0].mode == 0o711
    assert kinds(again) == {"x": DIRECTORY, "x/y": FILE}


def test_a_hardlink_keeps_the_file_that_its_name_had_then() -> None:
    index = index_of(member("a", data=b"old"), member("b", b"1", link="a"), member("a", data=b"newer"))
    assert {entry.path: (entry.kind, entry.size) for entry in index.entries} == {"a": (FILE, 5), "b": (FILE, 3)}


def test_hardlinks_may_name_symlinks_and_come_first_in_order() -> None:
    index = index_of(member("m", b"2", link="x"), member("a", b"1", link="/./m"), member("z", b"1", link="a"))
    assert kinds(index) == {"a": SYMLINK, "m": HARDLINK, "z": HARDLINK}
    assert {entry.link for entry in index.entries[1:]} == {"a"}


def test_removals() -> None:
    index = index_of(
        member("d/.wh.gone"),
        member("d/.wh..wh..opq"),
        member(".wh..wh.plnk/12.34"),
        member(".wh..wh.aufs"),
        member("e", b"3"),
        member("f/", b"5"),
        member(".wh.f"),
        member("g"),
        member(".wh.g"),
    )
    assert kinds(index) == {"d": OPAQUE, "d/gone": WHITEOUT, "e": WHITEOUT, "f": OPAQUE, "g": FILE}
    assert index.implied == ("d",)
    assert [entry.kind for entry in index.entries if entry.path == "f"] == [DIRECTORY, OPAQUE]


def test_entries_below_a_symlink_stand_where_it_leads() -> None:
    index = index_of(
        member("usr/lib/", b"5"),
        member("lib", b"2", link="../../usr/./lib"),
        member("alias", b"2", link="/lib"),
        member("alias/x/f", data=b"1"),
        member("lib/.wh.old"),
        member("hard", b"1", link="lib/x/f"),
    )
    assert kinds(index) == {
        "alias": SYMLINK, "hard": FILE, "lib": SYMLINK, "usr/lib": DIRECTORY, "usr/lib/old": WHITEOUT,
        "usr/lib/x/f": HARDLINK,
    }  # fmt: skip


def test_users_are_named_by_small_files() -> None:
    index = index_of(member("./etc/passwd", data=b"root:x:0:0::/:"), member("etc/group", data=b"g" * 70_000))
    assert dict(index.small) == {"etc/passwd": b"root:x:0:0::/:"}
    assert dict(index_of(member("etc/passwd", b"2", link="x")).small) == {}


@pytest.mark.parametrize(
    ("pattern", "tar"),
    [
        (r"name with `\.\.`: '\.\./etc/passwd'", member("../etc/passwd")),
        (r"name with `\.\.`: 'a/\.\./\.\./b'", member("a/../../b")),
        (r"name with `\.\.`", member("a", b"1", link="../x")),
        ("a name that cannot be", extension(b"x", pax_record(b"path", b"a\0b")) + member("f")),
        ("a name that cannot be", extension(b"L", b"a/" * 5000) + member("f")),
        ("name that is too long", extension(b"L", b"a" * 256) + member("f")),
        ("'b' is a hardlink to 'a', which is no file", member("b", b"1", link="a")),
        ("'b' is a hardlink to 'a', which is no file", member("a/", b"5") + member("b", b"1", link="a")),
        ("'b' is a hardlink to 'a', which is no file", member("a/c") + member("b", b"1", link="a")),
        ("'a' is a hardlink to 'a'", member("a") + member("a", b"1", link="a")),
        ("broken header after 'f': its checksum", member("f") + member("g").replace(b"g", b"h")),
        ("'f' is a sparse file", member("f", b"S")),
        ("sparse file after 'f'", member("f") + extension(b"x", pax_record(b"GNU.sparse.major", b"1")) + member("g")),
        ("'f' has the type 'V'", member("f", b"V")),
        ("'f' has a size that cannot be", extension(b"x", pax_record(b"size", b"99999999999999999999")) + member("f")),
        ("'f' has a size that cannot be", extension(b"x", pax_record(b"size", b"-1")) + member("f")),
        ("'f' has a size that cannot be", patched(member("f"), 124, b"\xff" * 12)),
        ("a mode that is no number", patched(member("f"), 100, b"rwxrwxr\0")),
        ("'f' has an mtime that cannot be", extension(b"x", pax_record(b"mtime", b"1e9")) + member("f")),
        ("'f' has a uid that cannot be", extension(b"x", pax_record(b"uid", b"4294967296")) + member("f")),
        ("a header of 2000000 bytes after 'f'", member("f") + member("x", b"x", size=2_000_000)),
        ("a header of -1 bytes", patched(member("x", b"L", size=0), 124, b"\xff" * 12)),
        ("broken PAX header", extension(b"x", b"99 path=x\n") + member("f")),
        ("broken PAX header", extension(b"x", b"0 path=x\n") + member("f")),
        ("broken PAX header", extension(b"x", b"8 path=x\n") + member("f")),
        ("broken PAX header", extension(b"x", b"junk") + member("f")),
        ("without a name", member(".")),
        ("without a name", member("", b"2", link="x")),
        ("'l' leads to what cannot be", member("l", b"2")),
        ("'d' is a device with a number that cannot be", patched(member("d", b"3"), 329, b"7777777\0")),
        ("'f/x' stands below what is no directory", member("f") + member("f/x")),
        ("'l/x' stands below what is no directory", member("l", b"2", link="/etc") + member("l/x")),
        ("'l/x' stands below what is no directory", member("l", b"2", link="l") + member("l/x")),
        ("'l/x' stands below what is no directory", member("f") + member("l", b"2", link="f") + member("l/x")),
        (r"'a/\.wh\.' removes what cannot be removed", member("a/.wh.")),
        ("removes what cannot be removed", member("a/.wh...")),
        ("stands below the mark of a removed file", member(".wh.a/b")),
        ("goes on after its end, after 'f'", member("f") + bytes(512) + member("g")),
        ("65536 bytes in the extended attribute", extension(b"x", LONG_XATTR) + member("f")),
    ],
)  # fmt: skip
def test_tricks_are_refused(pattern: str, tar: bytes) -> None:
    refused(pattern, tar)


def test_every_truncation_is_noticed_or_ends_after_a_member() -> None:
    tar = extension(b"x", pax_record(b"mtime", b"5")) + member("a", data=b"x" * 600) + member("b/", b"5")
    whole = {0, 512 * 5, len(tar)}
    for length in range(0, len(tar), 64):
        if length in whole:
            read(tar[:length])
        else:
            with pytest.raises(CorruptLayer, match="cut off"):
                read(tar[:length])


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(trees(), st.data())
def test_damaged_tars_fail_readably_or_give_a_sound_index(members: list[Member], data: st.DataObject) -> None:
    with scratch_file() as fd:
        layer = write(fd, members)
        tar = bytearray(os.pread(fd, layer.blob.size, 0))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(tar) - 1))
        tar[at] = data.draw(st.integers(0, 255))
        block = at // 512 * 512
        # Make the checksum fit, so that more than the checksum is tested.
        tar[block : block + 512] = patched(bytes(tar[block : block + 512]), 0, b"")
    with suppress(CorruptLayer):
        index = read(bytes(tar)).index
        # An index that breaks an invariant would be refused here.
        assert Index.decode(index.encode()) == index


def test_hostile_directories_cost_no_memory() -> None:
    deep = b"/".join([b"d"] * 4000)
    tars = [extension(b"L", b"%d/" % n + deep) + member("f") for n in range(40)]
    refused("implies too many directories", *tars)


@pytest.mark.alone
def test_hostile_replacements_cost_no_time() -> None:
    start = time.process_time()
    refused("replaces too many directories", *[member("a/", b"5"), member("a")] * 2000)
    assert time.process_time() - start < 2


def test_members_are_streamed_in_order() -> None:
    tar = member("b", data=b"x" * 3000) + member("a", b"2", link="/b") + member("b", data=b"again") + END
    seen = []
    for entry, data in read_members(tar[at : at + 700] for at in range(0, len(tar), 700)):
        seen.append((entry.path, entry.kind, entry.size, b"" if entry.size == 3000 else b"".join(data)))
    assert seen == [("b", FILE, 3000, b""), ("a", SYMLINK, 0, b""), ("b", FILE, 5, b"again")]


@pytest.mark.alone
def test_reading_is_fast() -> None:
    # 30,000 members a second on the machine where it was measured; this only catches what is slower by far.
    tar = b"".join(member(f"d/f{n:05}", data=b"x" * 2000) for n in range(3000))
    start = time.process_time()
    index_of(tar)
    assert time.process_time() - start < 1.5
