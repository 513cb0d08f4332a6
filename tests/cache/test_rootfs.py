"""Rootfs: layers merged as overlayfs merges them, and paths resolved as the kernel resolves them."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.entry import DIRECTORY, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import DefinitionError
from cache.index import Index
from cache.rootfs import NO_LAYER, Fact, Resolution, Rootfs
from tests.cache.layers import Member, directory, file, hardlink, opaque, scratch_file, symlink, whiteout, write

if TYPE_CHECKING:
    from pathlib import Path


def layer(*members: Member) -> Index:
    with scratch_file() as fd:
        return write(fd, sorted(members)).index


BASE = layer(
    directory("", 0o711),
    directory("etc", 0o755, uid=1),
    file("etc/passwd", b"root:x:0:0"),
    file("etc/old", b"1"),
    directory("opt/app", 0o700),
    file("opt/app/a", b"1"),
    file("opt/app/b", b"2"),
    hardlink("opt/hard", "etc/old"),
    directory("data"),
    file("data/x", b"1"),
    symlink("lib", "usr/lib"),
    directory("usr/lib"),
    file("usr/lib/so", b"1"),
)
TOP = layer(
    whiteout("etc/old"),
    file("etc/new", b"1"),
    directory("opt/app", 0o750),
    opaque("opt/app"),
    file("opt/app/c", b"3"),
    file("data", b"now a file"),
)


def kinds(rootfs: Rootfs, path: str = "") -> dict[str, tuple[str, int]]:
    return {entry.path: (entry.kind, number) for entry, number in rootfs.walk(path)}


def test_upper_layers_hide_and_merge() -> None:
    rootfs = Rootfs([BASE, TOP])
    assert kinds(rootfs) == {
        "": (DIRECTORY, 0), "data": (FILE, 1), "etc": (DIRECTORY, 0), "etc/new": (FILE, 1), "etc/passwd": (FILE, 0),
        "lib": (SYMLINK, 0), "opt": (DIRECTORY, 1), "opt/app": (DIRECTORY, 1), "opt/app/c": (FILE, 1),
        "opt/hard": (FILE, 0), "usr": (DIRECTORY, 0), "usr/lib": (DIRECTORY, 0), "usr/lib/so": (FILE, 0),
    }  # fmt: skip
    assert rootfs.listdir("etc") == ["new", "passwd"]
    assert rootfs.listdir("data") == []
    assert rootfs.lookup("etc/old") is None
    assert rootfs.lookup("data/x") is None
    assert rootfs.lookup("lib/so") is None
    assert [entry.path for entry, _ in rootfs.walk("opt/app")] == ["opt/app", "opt/app/c"]
    assert list(rootfs.walk("nothing")) == []
    app = rootfs.lookup("opt/app")
    etc = rootfs.lookup("etc")
    assert app is not None
    assert etc is not None
    assert (app[0].mode, etc[0].uid) == (0o750, 1)


def test_a_hardlink_is_given_as_its_file() -> None:
    found = Rootfs([BASE]).lookup("opt/hard")
    file_ = BASE.get("etc/old")
    assert found is not None
    assert file_ is not None
    assert found[0] == file_._replace(path="opt/hard")


def test_the_root_is_always_there() -> None:
    assert Rootfs([]).lookup("") == (Entry("", DIRECTORY, 0o755), NO_LAYER)
    assert Rootfs([]).listdir("") == []
    assert Rootfs([]).resolve("/a/b").path == "a/b"
    assert Rootfs([layer(file("a")), layer(file("b"))]).lookup("") == (Entry("", DIRECTORY, 0o755), 1)


def test_an_opaque_root_hides_everything() -> None:
    rootfs = Rootfs([BASE, layer(opaque(""), file("only", b"1"))])
    assert [entry.path for entry, _ in rootfs.walk()] == ["", "only"]
    assert rootfs.lookup("etc") is None


def test_the_walk_is_in_the_order_of_layers() -> None:
    rootfs = Rootfs([layer(file("a/b"), file("a-b"), file("a.b"))])
    assert [entry.path for entry, _ in rootfs.walk()] == ["", "a", "a-b", "a.b", "a/b"]


def where(rootfs: Rootfs, path: str, follow_last: bool = True) -> tuple[str, bool]:
    resolution = rootfs.resolve(path, follow_last)
    return resolution.path, resolution.entry is not None


def test_resolving() -> None:
    links = layer(
        symlink("abs", "/usr/lib"),
        symlink("up", "../../../../usr"),
        symlink("chain", "abs/."),
        symlink("dangling", "no/where"),
        symlink("usr/rel", "lib/../lib"),
    )
    rootfs = Rootfs([BASE, links])
    assert where(rootfs, "/lib/so") == ("usr/lib/so", True)
    assert where(rootfs, "abs/so") == ("usr/lib/so", True)
    assert where(rootfs, "up/lib//so") == ("usr/lib/so", True)
    assert where(rootfs, "chain/so") == ("usr/lib/so", True)
    assert where(rootfs, "usr/rel/so") == ("usr/lib/so", True)
    assert where(rootfs, "lib", follow_last=False) == ("lib", True)
    assert where(rootfs, "lib/", follow_last=False) == ("usr/lib", True)
    assert where(rootfs, "lib/..") == ("usr", True)
    assert where(rootfs, "../../etc/./passwd") == ("etc/passwd", True)
    assert where(rootfs, "dangling/x") == ("no/where/x", False)
    assert where(rootfs, "new/dir/file") == ("new/dir/file", False)
    assert where(rootfs, "new/../etc") == ("etc", True)
    assert where(rootfs, "etc/passwd/x") == ("etc/passwd/x", False)
    assert where(rootfs, "") == ("", True)
    assert where(rootfs, "/") == ("", True)


def test_circles_end() -> None:
    rootfs = Rootfs([layer(symlink("a", "b"), symlink("b", "a"), symlink("deep", "deep/x"))])
    for path in ("a", "b/x", "deep"):
        with pytest.raises(DefinitionError, match="too many symlinks"):
            rootfs.resolve(path)


def test_facts_say_what_decided() -> None:
    assert Rootfs([BASE]).resolve("lib/new/x") == Resolution(
        "usr/lib/new/x",
        None,
        NO_LAYER,
        (
            Fact("", DIRECTORY, 0o711),
            Fact("lib", SYMLINK, 0o777, link="usr/lib"),
            Fact("usr", DIRECTORY, 0o755),
            Fact("usr/lib", DIRECTORY, 0o755),
            Fact("usr/lib/new"),
        ),
    )
    other = Rootfs([BASE, layer(file("etc/else", b"1"), file("usr/lib/other", b"1"))])
    assert other.resolve("lib/new/x").facts != Rootfs([BASE, TOP]).resolve("etc/new/x").facts
    assert Rootfs([BASE, layer(directory("usr/lib"), file("usr/lib/other", b"1"))]).resolve("lib/new/x").facts == (
        Rootfs([BASE]).resolve("lib/new/x").facts
    )


def test_small_files_are_read_through_links() -> None:
    rootfs = Rootfs([BASE])
    assert rootfs.read_small("/etc/passwd") == b"root:x:0:0"
    assert rootfs.read_small("etc/group") is None
    assert rootfs.read_small("etc") is None
    linked = Rootfs([BASE, layer(symlink("etc/group", "passwd"))])
    assert linked.read_small("etc/group") == b"root:x:0:0"
    shared = Rootfs([layer(file("etc/group", b"g"), hardlink("etc/passwd", "etc/group"))])
    assert shared.read_small("etc/passwd") == b"g"
    assert Rootfs([BASE, layer(whiteout("etc/passwd"))]).read_small("etc/passwd") is None


def apply(root: Path, index: Index) -> None:
    """A layer over a real directory, the slow and obvious way: what is replaced, what is removed, what is new."""
    for entry in index.entries:
        target = root / entry.path
        if entry.kind == DIRECTORY and (target.is_symlink() or not target.is_dir()):
            remove(target)
            target.mkdir()
    for entry in index.entries:
        if entry.kind == WHITEOUT:
            remove(root / entry.path)
        elif entry.kind == OPAQUE:
            kept = {other.path for other in index.entries if other.kind == DIRECTORY}
            for child in list((root / entry.path).iterdir()):
                remove(child)
            for path in sorted(kept):
                (root / path).mkdir(exist_ok=True)
    for entry in index.entries:
        if entry.kind in (FILE, SYMLINK):
            target = root / entry.path
            remove(target)
            if entry.kind == SYMLINK:
                target.symlink_to(entry.link)
            else:
                target.write_bytes(b"")


def remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        for child in list(path.iterdir()):
            remove(child)
        path.rmdir()


def listing(root: Path) -> dict[str, str]:
    result = {"": DIRECTORY}
    for top, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(top, name)
            mode = os.lstat(path).st_mode
            kind = SYMLINK if stat.S_ISLNK(mode) else DIRECTORY if stat.S_ISDIR(mode) else FILE
            result[os.path.relpath(path, root)] = kind
    return result


@st.composite
def stacks(draw: st.DrawFn) -> list[Index]:
    """Layers of few names, so that they meet often; all parents are listed."""
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        kinds: dict[str, str] = {}
        for _ in range(draw(st.integers(0, 8))):
            parts = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
            kind = draw(st.sampled_from([FILE, DIRECTORY, DIRECTORY, SYMLINK, WHITEOUT]))
            parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
            path = "/".join(parts)
            if path in kinds or any(kinds.get(parent, DIRECTORY) != DIRECTORY for parent in parents):
                continue
            kinds |= dict.fromkeys(parents, DIRECTORY)
            kinds[path] = kind
        rows = [
            Entry(path, kind, link=draw(st.sampled_from(["a", "../b", "/c/a", "a/b"])) if kind == SYMLINK else "")
            for path, kind in kinds.items()
        ]
        rows += [
            Entry(path, OPAQUE) for path, kind in kinds.items() if kind == DIRECTORY and draw(st.integers(0, 3)) == 0
        ]
        layers.append(Index(rows))
    return layers


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(stack=stacks())
def test_the_merged_tree_is_what_applying_the_layers_leaves(
    stack: list[Index], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("root")
    for index in stack:
        apply(root, index)
    rootfs = Rootfs(stack)
    expected = listing(root)
    assert {entry.path: entry.kind for entry, _ in rootfs.walk()} == expected
    for path in expected:
        found = rootfs.lookup(path)
        assert found is not None
        assert found[0].path == path
    for path in ("a", "b", "c", "a/b", "c/a/b"):
        assert (rootfs.lookup(path) is not None) == (path in expected)


def test_deep_paths_need_no_recursion() -> None:
    path = "/".join("d" * 3000)
    rootfs = Rootfs([Index([Entry(f"{path}/f", FILE)])])
    found = rootfs.lookup(f"{path}/f")
    assert found is not None
    assert rootfs.resolve(f"{path}/f").entry == found[0]


@pytest.mark.alone
def test_many_layers_are_fast() -> None:
    base = Index(Entry(f"usr/d{n // 50}/f{n}", FILE) for n in range(10_000))
    tops = [Index([Entry("usr", DIRECTORY, 0o755), Entry(f"usr/d{n}/new{n}", FILE)]) for n in range(50)]
    rootfs = Rootfs([base, *tops])
    start = time.process_time()
    for n in range(10_000):
        assert rootfs.lookup(f"usr/d{n // 50}/f{n}") is not None
    for _ in range(2000):
        rootfs.resolve("/usr/d3/new3")
    assert sum(1 for _ in rootfs.walk()) == 10_000 + 50 + 200 + 2
    # 0.1 s on the machine where it was measured; this only catches what is slower by far.
    assert time.process_time() - start < 2


def test_hardlinks_keep_their_kind_in_the_index() -> None:
    entry = BASE.get("opt/hard")
    assert entry is not None
    assert entry.kind == HARDLINK
