"""Which paths a COPY source names, in a context and in layers alike, and the digest of just those."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.entry import DIRECTORY, FILE, SYMLINK, Entry
from cache.errors import DefinitionError
from cache.index import Index
from cache.lmdb_store import LmdbStore
from cache.rootfs import Rootfs
from worker.context import ContextTree
from worker.ignore import IgnoreRules
from worker.selection import rooted, select, selection_digest
from worker.tree import RootfsTree, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ("a.txt", "b.txt", "c.md", "dir/d.txt", "dir/sub/e.txt", "other/d.txt", "[x]", ".hidden")
LINKS = {"link": "a.txt", "dirlink": "dir", "out": "/../../a.txt", "broken": "nowhere"}


def layers() -> Tree:
    folders = ("dir", "dir/sub", "other")
    entries = [Entry(path, DIRECTORY, 0o755) for path in folders]
    entries += [Entry(path, FILE, 0o644, size=len(path), offset=512 * n, digest=f"{n:064}") for n, path in enumerate(FILES, 1)]
    entries += [Entry(path, SYMLINK, 0o777, link=link) for path, link in LINKS.items()]
    return RootfsTree(Rootfs([Index(entries)]), lambda _: -1)


@pytest.fixture(params=["layers", "context"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    if request.param == "layers":
        yield layers()
        return
    for path in FILES:
        target = tmp_path / "context" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path)
    for path, link in LINKS.items():
        (tmp_path / "context" / path).symlink_to(link)
    store = LmdbStore(str(tmp_path / "store"))
    yield ContextTree(str(tmp_path / "context"), IgnoreRules(()), store)
    store.close()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.txt", [("a.txt", "a.txt")]),
        ("/a.txt", [("a.txt", "a.txt")]),
        ("./dir/../a.txt", [("a.txt", "a.txt")]),
        ("../../a.txt", [("a.txt", "a.txt")]),
        ("dir", [("dir", "dir")]),
        ("dir/", [("dir", "dir")]),
        (".", [("", "")]),
        ("/", [("", "")]),
        ("*.txt", [("a.txt", "a.txt"), ("b.txt", "b.txt")]),
        ("*/d.txt", [("d.txt", "dir/d.txt"), ("d.txt", "dir/d.txt"), ("d.txt", "other/d.txt")]),
        ("dir/*", [("d.txt", "dir/d.txt"), ("sub", "dir/sub")]),
        ("?.md", [("c.md", "c.md")]),
        ("[ab].txt", [("a.txt", "a.txt"), ("b.txt", "b.txt")]),
        ("nothing*", []),
        ("a.txt/*", []),
        ("*/sub/*", [("e.txt", "dir/sub/e.txt"), ("e.txt", "dir/sub/e.txt")]),
        ("link", [("link", "a.txt")]),
        ("dirlink", [("dirlink", "dir")]),
        ("dirlink/d.txt", [("d.txt", "dir/d.txt")]),
        ("out", [("out", "a.txt")]),
        ("bro*", []),
        (".h*", [(".hidden", ".hidden")]),
        ("[[]x]", [("[x]", "[x]")]),
    ],
)
def test_what_a_pattern_names(tree: Tree, pattern: str, expected: list[tuple[str, str]]) -> None:
    assert [(match.name, match.path) for match in select(tree, pattern)] == expected


@pytest.mark.parametrize("pattern", ["nothing", "dir/nothing", "a.txt/x", "broken", "A.TXT"])
def test_a_literal_path_must_be_there(tree: Tree, pattern: str) -> None:
    with pytest.raises(DefinitionError, match=f"there is no '{pattern}'"):
        select(tree, pattern)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/d.txt", ["dir/d.txt", "other/d.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "dir/d.txt", "dir/sub/e.txt", "other/d.txt"]),
        ("dir/./sub/e.txt", ["sub/e.txt"]),
        ("./dir/*", ["dir/d.txt", "dir/sub"]),
    ],
)
def test_with_parents_the_path_is_kept_from_the_pivot_on(tree: Tree, pattern: str, expected: list[str]) -> None:
    assert [match.relative for match in select(tree, pattern, deep=True)] == expected


@given(st.lists(st.sampled_from(["a", "b", "..", ".", ""]), max_size=8).map("/".join))
def test_a_rooted_path_stays_inside(path: str) -> None:
    parts = rooted(path).split("/")
    assert parts == [""] or not {"", ".", ".."} & set(parts)
    assert rooted(rooted(path)) == rooted(path) == rooted(f"/{path}/") == rooted(f"../{path}")


def test_the_digest_is_of_what_is_selected_and_of_names_that_are_kept(tree: Tree) -> None:
    digests = [selection_digest(tree, pattern, None) for pattern in ("a.txt", "b.txt", "*.txt", "dir", "other", ".")]
    assert len(set(digests)) == len(digests)
    assert selection_digest(tree, "dir", None) == selection_digest(tree, "dirlink", None), "a directory's own name is not kept"
    assert selection_digest(tree, "a.txt", None) != selection_digest(tree, "link", None), "a file's is"
    assert selection_digest(tree, "dir/sub", None) == selection_digest(tree, "./dir//sub/", None)


def test_what_is_excluded_is_not_in_the_digest(tree: Tree) -> None:
    assert selection_digest(tree, "dir", lambda path: not path.startswith("sub")) == selection_digest(tree, "dir", lambda path: path == "d.txt")
    assert selection_digest(tree, "dir", lambda _: True) != selection_digest(tree, "dir", lambda path: path == "d.txt")
