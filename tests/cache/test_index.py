"""Index: its views, its identity, its encoding, and what it refuses to decode."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.entry import CHARACTER, DIRECTORY, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import CorruptBlob, CorruptLayer
from cache.index import Index
from cache.rootfs import Rootfs
from tests.cache.layers import Member, directory, file, hardlink, opaque, scratch_file, symlink, trees, whiteout, write

DIGEST = "0" * 64


def index_of(*members: Member) -> Index:
    with scratch_file() as fd:
        return write(fd, sorted(members)).index


SAMPLE = index_of(
    directory("d", xattrs=(("user.k", b"\0"),)),
    opaque("d"),
    file("d/f", b"1", mtime=5),
    hardlink("d/g", "d/f"),
    symlink("d/l", "f"),
    whiteout("d/w"),
    (Entry("dev/null", CHARACTER, 0o666, major=1, minor=3), b""),
    file("etc/passwd", b"root:x:0:0"),
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(trees())
def test_decoding_gives_back_what_was_encoded(members: list[Member]) -> None:
    index = index_of(*members)
    data = index.encode()
    again = Index.decode(data)
    assert again == index
    assert again.encode() == data
    assert again.content() == index.content()


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(trees())
def test_the_views_agree_with_the_entries(members: list[Member]) -> None:
    index = index_of(*members)
    there = {entry.path for entry in index.entries if entry.kind not in (WHITEOUT, OPAQUE)} | set(index.implied) | {""}
    seen = {""}
    waiting = [""]
    while waiting:
        path = waiting.pop()
        names = index.children(path)
        assert list(names) == sorted(names)
        for name in names:
            child = f"{path}/{name}" if path else name
            seen.add(child)
            if index.is_directory(child):
                waiting.append(child)
    assert seen == there


def test_views_of_a_layer() -> None:
    assert SAMPLE.implied == ("dev", "etc")
    assert SAMPLE.whiteouts == {"d/w"}
    assert SAMPLE.opaque == {"d"}
    assert SAMPLE.children("") == ("d", "dev", "etc")
    assert SAMPLE.children("d") == ("f", "g", "l")
    assert SAMPLE.children("d/f") == ()
    assert SAMPLE.get("d/w") is None
    assert SAMPLE.get("dev") is None
    found = SAMPLE.get("d")
    assert found is not None
    assert found.kind == DIRECTORY
    assert [entry.kind for entry in SAMPLE.entries[:2]] == [DIRECTORY, OPAQUE]


def test_content_leaves_out_times_and_places() -> None:
    assert index_of(file("f", b"x", mtime=1)).content() == index_of(file("f", b"x", mtime=2)).content()
    moved = Index(
        entry._replace(offset=entry.offset + 512) if entry.kind == FILE else entry for entry in SAMPLE.entries
    )
    assert moved.content() == SAMPLE.content()


def test_content_counts_all_else() -> None:
    variants = [
        index_of(),
        index_of(file("f", b"x")),
        index_of(file("f", b"y")),
        index_of(file("f", b"x", 0o600)),
        index_of(file("f", b"x", uid=1)),
        index_of(file("f", b"x", gid=1)),
        index_of(file("f", b"x", xattrs=(("user.a", b"1"),))),
        index_of(file("f", b"x", xattrs=(("user.a", b"2"),))),
        index_of(file("f", b"x", xattrs=(("user.a", b"1"), ("user.b", b"")))),
        index_of(file("g", b"x")),
        index_of(file("f", b"x"), file("g", b"x")),
        index_of(file("f", b"x"), hardlink("g", "f")),
        index_of(symlink("f", "x")),
        index_of(symlink("f", "y")),
        index_of(whiteout("f")),
        index_of(directory("f")),
        index_of(directory("f"), opaque("f")),
        index_of(file("f/g")),
        index_of(directory("f"), file("f/g")),
        index_of((Entry("f", CHARACTER, major=1, minor=2), b"")),
        index_of((Entry("f", CHARACTER, major=1, minor=3), b"")),
    ]
    assert len({index.content() for index in variants}) == len(variants)


def test_content_is_the_same_in_every_version() -> None:
    # A change of these makes every cache miss: raise the version in the encoding when one is meant.
    assert index_of().content() == EMPTY_CONTENT
    assert SAMPLE.content() == SAMPLE_CONTENT


EMPTY_CONTENT = "2712fefabc3259fd44fae19839c4171a435a4627d9f33a03d9b8a45c13c48e3e"
SAMPLE_CONTENT = "4095f91de11528ce393bb26f1cb11661390ec0698109e40dd74e381fad624e4d"


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(zstandard.decompress(SAMPLE.encode()))
    return loaded


def encoded(value: object) -> bytes:
    return zstandard.compress(json.dumps(value).encode())


def changed(key: str, value: object) -> bytes:
    return encoded({**document(), key: value})


def entries(*rows: Entry) -> bytes:
    return Index(rows).encode()


F = Entry("f", FILE, digest=DIGEST)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        zstandard.compress(b"junk"),
        zstandard.compress(b"[" * 100_000),
        SAMPLE.encode()[:-5],
        encoded([]),
        encoded({}),
        changed("version", 2),
        changed("path", ["a"]),
        changed("path", None),
        changed("kind", "x" * 8),
        changed("mode", ["7"] * 8),
        changed("mode", [True] * 8),
        changed("mode", [0o10000] * 8),
        changed("uid", [-1] * 8),
        changed("mtime", [1 << 80] * 8),
        changed("size", [1.5, 1]),
        changed("offset", [100, 512]),
        changed("digest", "Z" * 128),
        changed("link", ["d/f", ""]),
        changed("link", ["d/f", "a\0b"]),
        changed("link", ["d/none", "f"]),
        changed("device", [1]),
        changed("xattrs", [[0, [["trusted.overlay.opaque", "eQ=="]]]]),
        changed("xattrs", [[0, [["user.k", "!"]]]]),
        changed("xattrs", [[99, []]]),
        changed("xattrs", [[0, [["user.b", ""], ["user.a", ""]]]]),
        changed("small", [["etc/shadow", ""]]),
        changed("small", [["etc/passwd", "eA=="]]),
        changed("small", [["etc/group", ""]]),
        entries(F._replace(path="../f")),
        entries(F._replace(path="a/../f")),
        entries(F._replace(path="/f")),
        entries(F._replace(path="f/")),
        entries(F._replace(path="a//f")),
        entries(F._replace(path="./f")),
        entries(F._replace(path="a\0b")),
        entries(F._replace(path="n" * 256)),
        entries(F._replace(path="\ud800")),
        entries(F._replace(path="\udcc3\udca9")),
        entries(F._replace(path="")),
        entries(F, F),
        entries(F, Entry("f", WHITEOUT)),
        entries(F, Entry("f", OPAQUE)),
        entries(Entry("f", WHITEOUT), F._replace(path="f/g")),
        entries(F, F._replace(path="f/g")),
        entries(F._replace(path="z"), Entry("a", HARDLINK, link="z")),
        entries(Entry("d", DIRECTORY), Entry("e", HARDLINK, link="d")),
        entries(F, Entry("g", HARDLINK, link="f"), Entry("h", HARDLINK, link="g")),
        entries(F._replace(path="/".join("d" * 20_000))),
    ],
)
def test_what_no_writer_wrote_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptBlob, match=r"a layer's index cannot be read"):
        Index.decode(data)


def test_bombs_are_refused_before_they_are_unpacked() -> None:
    with pytest.raises(CorruptBlob, match="too large"):
        Index.decode(zstandard.compress(bytes(300 << 20)))


@settings(deadline=None, max_examples=100)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=8), st.data())
def test_any_wrong_value_is_refused_or_sound(value: object, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(document())))
    try:
        index = Index.decode(changed(key, value))
    except CorruptBlob:
        return
    assert Index.decode(index.encode()) == index


@pytest.mark.alone
def test_decoding_is_fast() -> None:
    # 75 ms for 20,000 entries on the machine where it was measured; this only catches what is slower by far.
    data = Index(
        Entry(f"d{n // 40}/f{n}", FILE, 0o644, size=n, offset=n * 512, digest=DIGEST) for n in range(20_000)
    ).encode()
    start = time.process_time()
    Index.decode(data)
    assert time.process_time() - start < 0.6


LOWER = Rootfs(
    [
        index_of(
            directory("etc", 0o751, uid=3, mtime=7, xattrs=(("user.x", b"1"),)),
            directory("usr/lib", 0o711),
            file("usr/lib/so", b""),
            symlink("lib", "usr/lib"),
            symlink("abs", "/lib"),
            symlink("out", "../../../etc"),
            symlink("loop", "loop"),
            file("file", b""),
        )
    ]
)


def test_rebasing_takes_directories_from_below() -> None:
    layer = index_of(file("etc/app/conf", b"x"), file("file/x"))
    rebased = layer.rebased(LOWER)
    assert rebased.implied == ()
    assert rebased.get("etc") == Entry("etc", DIRECTORY, 0o751, 3, 0, 7, xattrs=(("user.x", b"1"),))
    assert rebased.get("etc/app") == Entry("etc/app", DIRECTORY, 0o755)
    assert rebased.get("file") == Entry("file", DIRECTORY, 0o755)
    assert rebased.get("etc/app/conf") == layer.get("etc/app/conf")
    assert rebased.rebased(LOWER) is rebased


def test_rebasing_follows_symlinks_below_within_the_root() -> None:
    layer = index_of(
        file("abs/a", b"1"),
        file("lib/x/b", b"2"),
        whiteout("lib/so"),
        hardlink("z", "lib/x/b"),
        file("out/passwd", b"3"),
    )
    rebased = layer.rebased(LOWER)
    assert {entry.path: entry.kind for entry in rebased.entries} == {
        "etc": DIRECTORY, "etc/passwd": FILE, "usr": DIRECTORY, "usr/lib": DIRECTORY, "usr/lib/a": FILE,
        "usr/lib/so": WHITEOUT, "usr/lib/x": DIRECTORY, "usr/lib/x/b": FILE, "z": HARDLINK,
    }  # fmt: skip
    link = rebased.get("z")
    lib = rebased.get("usr/lib")
    assert link is not None
    assert lib is not None
    assert (link.link, lib.mode) == ("usr/lib/x/b", 0o711)
    assert Index.decode(rebased.encode()) == rebased


def test_rebasing_keeps_what_the_layer_spells_out() -> None:
    explicit = index_of(directory("lib", 0o700), file("lib/x", b"1"))
    assert explicit.rebased(LOWER) is explicit
    emptied = index_of(opaque("etc"), file("etc/app/f", b"1")).rebased(LOWER)
    assert emptied.get("etc") == LOWER.layers[0].get("etc")
    both = index_of(file("lib/x", b"lower"), file("usr/lib/x", b"own")).rebased(LOWER)
    kept = both.get("usr/lib/x")
    assert kept is not None
    assert kept.size == 3


def test_rebasing_leaves_out_marks_that_remove_nothing() -> None:
    layer = index_of(
        directory("etc"), directory("new"), opaque("usr/lib"), whiteout("file"), whiteout("new/x"), whiteout("x")
    )
    assert layer.rebased(LOWER).whiteouts == {"file"}
    emptied = index_of(directory("usr/lib"), opaque("usr/lib"), directory("usr"), whiteout("usr/lib/x"))
    assert emptied.rebased(LOWER).whiteouts == frozenset()


def test_rebasing_below_a_file_of_the_layer_is_refused() -> None:
    with pytest.raises(CorruptLayer, match="'usr/lib', which is no directory"):
        index_of(file("lib/x"), file("usr/lib")).rebased(LOWER)


def test_hardlinks_lead_to_the_first_name_after_rebasing() -> None:
    layer = index_of(file("abs/a", b"1"), hardlink("b", "abs/a"))
    rebased = layer.rebased(LOWER)
    assert [(entry.path, entry.kind, entry.link) for entry in rebased.entries if entry.kind != DIRECTORY] == [
        ("b", FILE, ""),
        ("usr/lib/a", HARDLINK, "b"),
    ]


def test_symlinks_are_not_normalised() -> None:
    assert index_of(symlink("s", "../..//x/")).entries == (Entry("s", SYMLINK, 0o777, link="../..//x/"),)
