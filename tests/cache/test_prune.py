"""Prune: what goes by filters and limits, the least worth first, and what stays with what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cache import encoding
from cache.blob_files import INLINE_LIMIT
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.prune import Filters, Limits, prune
from cache.store import Batch
from tests.cache.stored import LARGE, SMALL, content, has_result, names_of, result_batch, used

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTHING = Filters()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


def test_each_result_goes_by_itself_by_what_it_is_worth(store: LmdbStore) -> None:
    now = time.time()
    for name, seconds, age in (("cheap", 0.1, 0), ("dear", 600.0, 0), ("old", 600.0, 60 * 86_400)):
        store.commit(result_batch(name, name.encode() * INLINE_LIMIT, seconds=seconds))
        store.commit(used(name, now - age))
    before = prune(store, NOTHING, Limits(max_used=1 << 40)).used
    pruned = prune(store, NOTHING, Limits(max_used=before - 1000))
    assert names_of(pruned, "cheap", "dear", "old") == ["cheap"]
    assert [has_result(store, name) for name in ("cheap", "dear", "old")] == [False, True, True]
    pruned = prune(store, NOTHING, Limits(max_used=pruned.used - 1000))
    assert names_of(pruned, "dear", "old") == ["old"]
    assert "uses no more than" in pruned.going[0].rule


def test_a_limit_that_holds_removes_nothing(store: LmdbStore) -> None:
    store.commit(result_batch("a", LARGE))
    assert prune(store, NOTHING, Limits(max_used=1 << 40, min_free=0)).going == ()
    assert has_result(store, "a")


def test_filters_by_age_project_and_kind(store: LmdbStore) -> None:
    now = time.time()
    for name, age, project in (("new", 0, "/home/app/shop"), ("old", 9, "/home/app/shop"), ("else", 9, "/home/app/workshop")):
        store.commit(result_batch(name, name.encode(), made_at=now - 90 * 86_400))
        store.commit(used(name, now - age * 86_400, project))
    week = Filters(unused_since=now - 7 * 86_400)
    everything = ("new", "old", "else")

    def would(filters: Filters) -> set[str]:
        return set(names_of(prune(store, filters, Limits(), dry_run=True), *everything))

    assert would(week) == {"old", "else"}
    assert would(Filters(projects=("shop",))) == {"new", "old"}
    assert would(Filters(projects=("/home/app/workshop",))) == {"else"}
    assert would(Filters(projects=("app/shop/",))) == {"new", "old"}
    assert would(Filters(projects=("op",))) == set(), "the end of a path is whole names"
    assert would(Filters(kinds=("step",))) == set(everything)
    assert would(Filters(kinds=("base", "mount"))) == set()
    assert all(has_result(store, name) for name in everything), "a dry run removes nothing"
    prune(store, week._replace(projects=("shop",)), Limits())
    assert [has_result(store, name) for name in everything] == [True, False, True]


def test_records_of_an_evicted_result_go_with_it_and_say_so(store: LmdbStore) -> None:
    store.commit(result_batch("a", SMALL))
    store.commit(used("a", time.time()))
    store.commit(result_batch("b", LARGE))
    pruned = prune(store, Filters(projects=("shop",), rule="pruned: of the project shop"), Limits())
    assert names_of(pruned, "a", "b") == ["a"]
    assert [key for key, _ in store.scan("recipes")] == [encoding.key("recipe", "b")]
    assert store.scan("uses") == []
    when, rule, size, _ = encoding.parse(store.get("evictions", content("a")) or b"")
    assert abs(when - time.time()) < 60
    assert rule == "pruned: of the project shop"
    assert size >= len(SMALL)


def test_what_results_share_stays_with_the_last_of_them(store: LmdbStore) -> None:
    store.commit(result_batch("a", LARGE))
    store.commit(result_batch("b", LARGE))
    store.commit(used("a", time.time()))
    pruned = prune(store, Filters(projects=("shop",)), Limits())
    assert names_of(pruned, "a", "b") == ["a"]
    assert pruned.reclaimed.bytes == 0
    assert store.read_blob(Digest.of(LARGE)) == LARGE
    assert prune(store, NOTHING, Limits()).reclaimed.bytes >= len(LARGE)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["inline", "file"])
def test_a_blob_without_a_record_is_reclaimed(store: LmdbStore, data: bytes) -> None:
    store.commit(Batch(blobs={Digest.of(data): data}))
    prune(store, NOTHING, Limits(max_used=1 << 40))
    assert not store.has_blob(Digest.of(data))
