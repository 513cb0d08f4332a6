"""What goes first when there is too much: decisions over made-up holdings."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cache.server.holdings import HeldAction, HeldBlob, Holdings
from cache.server.shedding import Demands, Shed, plan_shedding

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 1_700_000_000.0
DAY = 86_400
MB = 1_000_000


def held(
    sizes: Sequence[int],
    actions: Sequence[tuple[str, str, tuple[int, ...], int, float]] = (),
    loose: Sequence[tuple[str, int, int]] = (),
    *,
    broken: frozenset[str] = frozenset(),
) -> Holdings:
    """actions: (name, namespace, blobs, seconds since the last use, seconds to make). loose: (namespace, blob, seconds
    since the last use)."""
    named: dict[tuple[str, int], int] = {}
    for _, namespace, blobs, _, _ in actions:
        for blob in blobs:
            named[namespace, blob] = named.get((namespace, blob), 0) + 1
    return Holdings(
        [f"blob-{number}" for number in range(len(sizes))], array("q", sizes),
        [HeldAction(name, ns, blobs, int(NOW - age), seconds, 0, name in broken) for name, ns, blobs, age, seconds in actions],
        [HeldBlob(ns, blob, int(NOW - age)) for ns, blob, age in loose if (ns, blob) not in named],
        named,
    )  # fmt: skip


def shed(holdings: Holdings, need: int = 0, limits: dict[str, int] | None = None, unused: float | None = None) -> Shed:
    since = None if unused is None else NOW - unused
    return plan_shedding(holdings, Demands(need, lambda name: (limits or {}).get(name), since), NOW)


def test_nothing_goes_that_need_not() -> None:
    assert shed(held([MB], [("a", "main", (0,), DAY, 1.0)], [("main", 0, DAY)])) == Shed()


def test_what_took_long_to_make_stays_before_what_did_not() -> None:
    holdings = held([MB, MB, MB], [(name, "main", (n,), DAY, 10.0**n) for n, name in enumerate("abc", 0)])
    assert shed(holdings, MB).actions == {"a"}
    assert shed(holdings, 2 * MB).actions == {"a", "b"}


def test_what_was_used_lately_stays_before_what_was_not() -> None:
    holdings = held([MB, MB], [("new", "main", (0,), DAY, 5.0), ("old", "main", (1,), 60 * DAY, 5.0)])
    assert shed(holdings, 1) == Shed(frozenset({"old"}), frozenset({("main", "blob-1")}), ("the store may have no more",), 0)


def test_large_ones_go_before_small_ones_of_the_same_worth() -> None:
    holdings = held([MB, 100 * MB], [("small", "main", (0,), DAY, 50.0), ("large", "main", (1,), DAY, 50.0)])
    assert shed(holdings, MB).actions == {"large"}


def test_a_blob_that_nobody_names_goes_before_a_result_of_the_same_age() -> None:
    holdings = held([MB, MB], [("a", "main", (0,), DAY, 5.0)], [("main", 1, DAY)])
    assert shed(holdings, 1) == Shed(frozenset(), frozenset({("main", "blob-1")}), ("the store may have no more",), 0)


def test_a_blob_stays_as_long_as_a_result_of_its_namespace_names_it() -> None:
    holdings = held([MB, 2 * MB], [("a", "main", (0, 1), 40 * DAY, 1.0), ("b", "main", (1,), DAY, 500.0)])
    gone = shed(holdings, 1)
    assert gone.actions == {"a"}
    assert gone.blobs == {("main", "blob-0")}


def test_only_the_last_namespace_that_has_a_blob_gives_its_bytes_back() -> None:
    holdings = held([10 * MB, MB], [("m", "main", (0,), DAY, 900.0)], [("pr/1", 0, 50 * DAY), ("pr/1", 1, 40 * DAY)])
    gone = shed(holdings, MB)
    assert ("pr/1", "blob-1") in gone.blobs, "the other one would give nothing back"
    assert not gone.actions


def test_a_namespace_over_its_limit_is_cleaned_up_by_itself() -> None:
    holdings = held(
        [MB] * 6,
        [(f"p{n}", "pr/1", (n,), (9 - n) * DAY, 1.0) for n in range(3)] + [("m", "main", (3,), 90 * DAY, 1.0)],
        [("pr/2", 4, 90 * DAY)],
    )
    gone = shed(holdings, limits={"pr/1": 2 * MB, "pr/2": 2 * MB})
    assert gone.actions == {"p0", "p1"}, "down to nine tenths, the oldest first"
    assert {namespace for namespace, _ in gone.blobs} == {"pr/1"}


def test_what_has_just_come_is_spared_until_nothing_else_is_left() -> None:
    holdings = held([MB, MB, MB], [("hour", "main", (0,), 1800, 1.0)], [("main", 1, 30), ("main", 2, 2 * DAY)])
    assert shed(holdings, MB).blobs == {("main", "blob-2")}
    gone = shed(holdings, 3 * MB)
    assert gone.blobs == {("main", "blob-2"), ("main", "blob-0")}, "an upload of this minute is on its way to its result"
    assert gone.short == MB


def test_a_client_that_claims_years_of_work_gains_little() -> None:
    holdings = held([MB, MB], [("liar", "main", (0,), 90 * DAY, 1e30), ("honest", "main", (1,), DAY, 600.0)])
    assert shed(holdings, 1).actions == {"liar"}


def test_a_result_that_names_what_is_gone_always_goes() -> None:
    holdings = held([MB], [("broken", "main", (0,), 1, 9.0), ("good", "main", (0,), 1, 9.0)], broken=frozenset({"broken"}))
    assert shed(holdings) == Shed(frozenset({"broken"}), frozenset())


def test_what_nobody_used_for_long_goes_without_any_limit() -> None:
    holdings = held([MB, MB, MB], [("old", "main", (0,), 91 * DAY, 1e4), ("new", "main", (1,), 89 * DAY, 1.0)], [("main", 2, 91 * DAY)])
    gone = shed(holdings, unused=90 * DAY)
    assert (gone.actions, gone.blobs) == ({"old"}, {("main", "blob-0"), ("main", "blob-2")})


NAMES = st.sampled_from(["main", "pr/1", "pr/2"])
AGES = st.integers(0, 100 * DAY)


@given(
    sizes=st.lists(st.integers(1, 5 * MB), min_size=1, max_size=8),
    data=st.data(),
    need=st.integers(0, 30 * MB),
    limit=st.none() | st.integers(0, 10 * MB),
)
def test_whatever_there_is_what_stays_is_whole_and_what_was_asked_for_comes_back(
    sizes: list[int], data: st.DataObject, need: int, limit: int | None
) -> None:
    blobs = st.integers(0, len(sizes) - 1)
    actions = data.draw(
        st.lists(st.tuples(NAMES, st.lists(blobs, max_size=4, unique=True), AGES, st.floats(0, 1e6)), max_size=8)
    )
    loose = data.draw(st.lists(st.tuples(NAMES, blobs, AGES), max_size=8, unique_by=lambda each: each[:2]))
    holdings = held(sizes, [(f"a{n}", ns, tuple(b), age, s) for n, (ns, b, age, s) in enumerate(actions)], loose)
    limits = {} if limit is None else {"pr/1": limit}
    gone = shed(holdings, need, limits)
    left = [action for action in holdings.actions if action.key not in gone.actions]
    for action in left:
        for blob in action.blobs:
            assert (action.namespace, holdings.digests[blob]) not in gone.blobs, "a result lost a blob that it names"
    places = {(ns, blob) for ns, blob in holdings.named} | {(each.namespace, each.blob) for each in holdings.loose}
    stay = {(ns, blob) for ns, blob in places if (ns, holdings.digests[blob]) not in gone.blobs}
    freed = sum(sizes[blob] for blob in {b for _, b in places} - {b for _, b in stay})
    assert freed >= need - gone.short or gone.short > 0
    new = [a for a in left if NOW - a.last <= 60] + [b for b in holdings.loose if NOW - b.last <= 60]
    if not new and gone.short:
        assert not stay, "there was more to give"
    if limit is not None and not new:
        assert sum(sizes[blob] for ns, blob in stay if ns == "pr/1") <= limit
