"""What the digest of a context counts, and what it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.lmdb_store import LmdbStore
from tests.worker.counting import Counting, Later, digest_of, scan

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ("echo x >> a", True),
        ("mv a z", True),
        ("chmod +x a", True),
        ("chmod u+s a", True),
        ("chmod 600 a", False),
        ("chmod 664 a", False),
        ("chmod 775 dir", False),
        ("chmod 1777 dir", True),
        ("touch -d 2001-01-01 a", False),
        ("mkdir empty", True),
        ("ln -s a link", True),
        ("ln a hard", True),
        ("mkfifo pipe", True),
        ("rm -r dir/deep", True),
        ("mv dir/c dir/deep/", True),
        ("mv b t; mv a b; mv t a", True),
    ],
)
def test_what_counts(store: LmdbStore, context: Path, change: str, counts: bool) -> None:
    before = digest_of(store, context)
    assert os.system(f"cd '{context}' && {change}") == 0
    assert (digest_of(store, context) != before) == counts


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owners_and_attributes_do_not_count(store: LmdbStore, context: Path) -> None:
    before = digest_of(store, context)
    os.chown(context / "a", 5, 6)
    os.setxattr(context / "a", "user.x", b"1")
    assert digest_of(store, context) == before
    (entry, _) = next(iter(Counting(context, store).walk("a")))
    assert (entry.uid, entry.gid, entry.xattrs) == (0, 0, ())


def test_a_link_counts_by_where_it_points(store: LmdbStore, context: Path) -> None:
    (context / "link").symlink_to("a")
    before = digest_of(store, context)
    (context / "link").unlink()
    (context / "link").symlink_to("b")
    assert digest_of(store, context) != before


def test_a_directorys_digest_does_not_depend_on_where_it_is(store: LmdbStore, context: Path, tmp_path: Path) -> None:
    (context / "dir").rename(context / "other")
    moved = digest_of(store, context, path="other")
    (context / "other").rename(tmp_path / "elsewhere")
    assert digest_of(store, tmp_path / "elsewhere") == moved


def test_the_digest_from_memory_is_that_from_the_disk(store: LmdbStore, context: Path) -> None:
    for name in ("x y", "é", "\udcff", "-", "\n"):
        Path(os.fsdecode(os.fsencode(f"{context}/dir/{name}"))).write_text("x")
    remembered = scan(Later(context, store), store)
    tree = Later(context, store)
    assert tree.digest("") == remembered
    assert tree.hashed == []
    with_other_store = LmdbStore(store.directory + "2")
    assert Counting(context, with_other_store).digest("") == remembered
    with_other_store.close()


names = st.sampled_from(["a", "b", "a.b", "a-", "é", "\udcfe"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path_factory.mktemp("shared")))
    yield opened
    opened.close()


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(paths, st.binary(max_size=3), max_size=6), st.dictionaries(paths, st.binary(max_size=3), max_size=6))
def test_two_contexts_have_one_digest_if_they_are_equal(
    shared: LmdbStore, tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("two")
    trees = []
    for place, wanted in (("1", one), ("2", other)):
        (root / place).mkdir()
        written: dict[str, bytes] = {}
        for path, data in wanted.items():
            target = root / place / path
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            except OSError:  # a file is where another path needs a directory
                continue
            written[path] = data
        folders = {str(path.relative_to(root / place)) for path in (root / place).rglob("*") if path.is_dir()}
        trees.append((written, folders, digest_of(shared, root / place)))
    assert (trees[0][2] == trees[1][2]) == (trees[0][:2] == trees[1][:2])
