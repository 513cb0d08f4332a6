"""What steps were made of outlives their results as long as somebody may ask, the newest up to a bound."""

from __future__ import annotations

import os
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from cache import encoding, remembered
from cache.build_record import new_key
from cache.lmdb_store import LmdbStore
from cache.prune import Filters, Limits, prune
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cache.store import Table


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


def recipe(name: str) -> str:
    return encoding.key("recipe", name)


def note(name: str, *names: str, size: int = 10) -> tuple[Table, str, bytes]:
    """What a recipe was made of. names: keys that it names."""
    return "preimages", recipe(name), zlib.compress(encoding.canonical(list(names)) + os.urandom(size), 0)


def place(file: str, started: float, *names: str) -> tuple[Table, str, bytes]:
    """What the steps of a file last were."""
    nodes = {f"0.{number}": [recipe(name), "", "", ""] for number, name in enumerate(names)}
    return "places", f"at:{file}", zlib.compress(encoding.canonical({"build": new_key(started), "nodes": nodes}))


def operation(name: str) -> tuple[Table, str, bytes]:
    return "places", f"op:{name}", encoding.canonical({"seconds": [1.0], "recipe": recipe(name), "file": "f"})


def kept(store: LmdbStore, *names: str) -> list[str]:
    """Those of the names whose notes are there after everything was pruned."""
    prune(store, Filters(), Limits())
    return [name for name in names if store.get("preimages", recipe(name)) is not None]


def test_what_a_place_or_an_operation_names_stays_with_all_below(store: LmdbStore) -> None:
    listed, lost = encoding.key("source", "listed"), encoding.key("source", "lost")
    files: list[tuple[Table, str, bytes]] = [("preimages", f"source:{each}", b"files") for each in (listed, lost)]
    store.commit(
        Batch(
            records=(
                note("image"), note("below", recipe("image")), note("place", recipe("below"), listed), note("operation"),
                note("nobody", lost), place("f", time.time(), "place"), operation("operation"), *files,
            )
        )
    )  # fmt: skip
    names = ("image", "below", "place", "operation", "nobody")
    assert kept(store, *names) == ["image", "below", "place", "operation"]
    assert store.get("preimages", f"source:{listed}") == b"files"
    assert store.get("preimages", f"source:{lost}") is None
    store.commit(Batch(deleted=(("places", "at:f"),)))
    assert kept(store, *names) == ["operation"]
    assert store.get("preimages", f"source:{listed}") is None


def test_the_oldest_go_beyond_the_bound(store: LmdbStore) -> None:
    now, size = time.time(), remembered.MAX_BYTES // 5
    names = [f"n{number}" for number in range(8)]
    rows = [note(name, size=size) for name in names]
    rows += [place(name, now - 3600 * number, name) for number, name in enumerate(names)]
    store.commit(Batch(records=(*rows, note("old", size=10), operation("old"))))
    left = kept(store, *names, "old")
    assert 1 <= len(left) < 5
    assert left == names[: len(left)], "those that were built last"


def test_a_list_of_files_counts_for_what_names_it(store: LmdbStore) -> None:
    source = encoding.key("source", "large")
    large: tuple[Table, str, bytes] = ("preimages", f"source:{source}", bytes(remembered.MAX_BYTES))
    now = time.time()
    store.commit(Batch(records=(note("new"), place("a", now, "new"), note("old", source), place("b", now - 60, "old"), large)))
    assert kept(store, "new", "old") == ["new"]
    assert store.get("preimages", f"source:{source}") is None


def test_what_has_its_result_is_never_counted(store: LmdbStore) -> None:
    names = [f"n{number}" for number in range(4)]
    rows = [note(name, size=remembered.MAX_BYTES) for name in names]
    known: list[tuple[Table, str, bytes]] = [("recipes", recipe(name), b"c0ffee") for name in names]
    store.commit(Batch(records=(*rows, *known, ("results", "c0ffee", b"{}"))))
    prune(store, Filters(), Limits(max_used=1 << 40))
    assert all(store.get("preimages", recipe(name)) is not None for name in names)
