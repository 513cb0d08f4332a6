"""Eviction: what an item is worth, and which go first, as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.eviction import HALF_LIFE, Candidate, chance, choose, value

candidates = st.lists(
    st.builds(
        Candidate,
        key=st.text("abc", max_size=4),
        blobs=st.lists(st.integers(0, 9), unique=True, max_size=4).map(tuple),
        own=st.integers(0, 100),
        value=st.floats(0, 10),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(candidates, st.lists(st.integers(0, 1000), min_size=10, max_size=10), st.none() | st.integers(-5, 3000), st.integers(0, 9))
def test_no_more_goes_than_is_needed_and_the_least_worth_first(
    items: list[Candidate], sizes: list[int], need: int | None, pinned: int
) -> None:
    holders = [sum(blob in item.blobs for item in items) for blob in range(10)]
    holders[pinned] += 1  # something that may not go holds it, too
    chosen = choose(items, sizes, holders, need)
    assert chosen == choose(items, sizes, holders, need)
    ranks = [(items[choice.candidate].value, items[choice.candidate].key) for choice in chosen]
    assert ranks == sorted(ranks)
    rest = [(item.value, item.key) for number, item in enumerate(items) if number not in {c.candidate for c in chosen}]
    assert not ranks or all(ranks[-1] <= other for other in rest)
    gone = {choice.candidate for choice in chosen}
    held = {blob for number, item in enumerate(items) if number not in gone for blob in item.blobs} | {pinned}
    freed = sum(items[number].own for number in gone)
    freed += sum(sizes[blob] for blob in range(10) if blob not in held and any(blob in items[n].blobs for n in gone))
    assert sum(choice.freed for choice in chosen) == freed
    if need is None:
        assert len(chosen) == len(items)
    elif chosen:
        assert freed - chosen[-1].freed < need, "without the last one it would not have been enough"
    if need is not None and freed < need:
        assert len(chosen) == len(items) or need <= 0


@given(st.floats(0, 1e9), st.floats(0, 1e8), st.integers(0, 1000), st.floats(0, 1e12))
def test_value_falls_with_age_and_size_and_grows_with_use(seconds: float, age: float, count: int, size: float) -> None:
    worth = value(seconds, age, count, size)
    assert worth >= 0
    assert value(seconds, age + HALF_LIFE, count, size) == pytest.approx(worth / 2, rel=1e-6, abs=1e-300)
    assert value(seconds, age, count + 1, size) >= worth
    assert value(seconds * 2, age, count, size) >= worth
    assert value(seconds, age, count, size * 2 + 1024) <= worth
    assert 0 <= chance(age, count) < 1
