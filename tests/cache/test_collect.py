"""The automatic clean-up after builds: it keeps the limit, costs nothing when there is nothing to do, and never fails."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache import encoding
from cache.collect import GcPolicy, collect_after_build
from cache.lmdb_store import LmdbStore
from tests.cache.stored import LARGE, has_result, result_batch, used

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


def test_the_automatic_clean_up_keeps_the_limit(store: LmdbStore) -> None:
    policy = GcPolicy(max_used=1 << 20)
    assert collect_after_build(store, policy) is None
    for number in range(30):
        store.commit(result_batch(str(number), os.urandom(100_000)))
    line = collect_after_build(store, policy)
    assert line is not None
    assert "cleaned up the cache" in line
    left = sum(path.stat().st_size for path in Path(store.directory, "blobs").rglob("*") if path.is_file())
    assert 300_000 < left <= 1 << 20
    assert collect_after_build(store, policy) is None, "there is nothing to do any more"


@pytest.mark.alone
def test_the_automatic_clean_up_is_cheap_when_there_is_nothing_to_do(store: LmdbStore) -> None:
    store.commit(result_batch("a", LARGE))
    policy = GcPolicy()
    collect_after_build(store, policy)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert collect_after_build(store, policy) is None
        times.append(time.perf_counter() - began)
    assert sorted(times)[10] < 0.001


def test_the_automatic_clean_up_can_be_off_and_never_fails(store: LmdbStore, tmp_path: Path) -> None:
    store.commit(result_batch("a", LARGE))
    assert collect_after_build(store, GcPolicy(enabled=False, max_used=1)) is None
    assert has_result(store, "a")
    other = LmdbStore(str(tmp_path / "other"))
    other.commit(result_batch("a", LARGE))
    os.rename(other.directory, f"{other.directory}.moved")
    assert collect_after_build(other, GcPolicy(max_used=1)) is None
    os.rename(f"{other.directory}.moved", other.directory)
    other.close()


def used_before(store: LmdbStore, name: str, size: int = 200_000, seconds: float = 1e6) -> None:
    """What another build made a day ago, dear by default."""
    store.commit(result_batch(name, os.urandom(size), seconds=seconds, made_at=time.time() - 86_400))


def test_what_the_build_used_or_made_stays(store: LmdbStore) -> None:
    for number in range(6):
        used_before(store, f"dear{number}")
    used_before(store, "used", seconds=0.001)
    store.commit(used("used", time.time()))
    store.commit(result_batch("made", os.urandom(200_000), seconds=0.001))
    policy = GcPolicy(max_used=1 << 20, max_used_text="1MiB (max-used-space in buildgraph.toml)")
    line = collect_after_build(store, policy)
    assert line is not None
    assert "cleaned up the cache" in line
    assert "alone" not in line
    assert has_result(store, "used")
    assert has_result(store, "made")
    left = [has_result(store, f"dear{number}") for number in range(6)]
    assert 0 < sum(left) < 6
    rules = {encoding.parse(value)[1] for _, value in store.scan("evictions")}
    assert rules == {"least worth, so that the store uses no more than 1MiB (max-used-space in buildgraph.toml)"}


def test_a_build_that_is_over_the_limit_by_itself_is_cleaned_up_and_told(store: LmdbStore) -> None:
    used_before(store, "dear")
    for number in range(8):
        store.commit(result_batch(f"made{number}", os.urandom(200_000), seconds=0.001))
    line = collect_after_build(store, GcPolicy(max_used=1 << 20, max_used_text="1MiB"))
    assert line is not None
    assert "this build alone uses 1.5 MiB, but the policy says that the store uses no more than 1MiB" in line
    assert has_result(store, "dear"), "what is worth least goes, whoever made it"
    assert 0 < sum(has_result(store, f"made{number}") for number in range(8)) < 8
