"""What a build reported becomes bars: where they stand, which of them count, and that a viewer takes them."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_schema import bars, check, row, steps

from compiler.progress.events import Announced, Ended, Finished, NodeInfo, Placed, Printed, Started, Task, Waiting
from compiler.trace.chrome import chrome_bytes
from compiler.trace.chronicle import chronicle
from compiler.trace.critical import critical_chain
from compiler.trace.lanes import lanes

if TYPE_CHECKING:
    from compiler.progress.events import Event
    from compiler.trace.timeline import Timeline

NODES = Announced(
    (
        NodeInfo("a.1", 1, "[a 1/1] RUN long", "a", "run", ("image:x",)),
        NodeInfo("b.1", 2, "[b 1/1] RUN short", "b", "run", ("image:x",)),
        NodeInfo("c.1", 3, "[c 1/2] COPY both", "c", "copy", ("a.1", "b.1")),
        NodeInfo("c.2", 4, "[c 2/2] RUN last", "c", "run", ("c.1",)),
    )
)
DONE = Ended(True, 9.0, "sha256:1", 0, 4, "")


def told(*events: tuple[float, Event]) -> Timeline:
    return chronicle([(1000.0 + at, event) for at, event in events], 1000.0)


def done(name: str, worker: str = "", key: str = "") -> Finished:
    return Finished(name, "done", 0.0, 10, f"on {worker}" if worker else "", "", key, worker)


def fleet_build() -> Timeline:
    """Two workers make a and b at the same time, and this machine the rest."""
    return told(
        (0.5, NODES), (1.0, Started("a.1", "it changed", "files-changed", "ka")), (1.0, Started("b.1", "", "never-built", "kb")),
        (1.1, Waiting("a.1", "for a worker")), (1.2, Placed("a.1", "w1", "w1")), (1.5, Placed("b.1", "w2", "w2")),
        (2.5, done("b.1", "w2", "kb")), (4.2, done("a.1", "w1", "ka")), (4.2, Started("c.1", "", "never-built", "kc")),
        (4.3, Printed("c.1", "a line")), (4.4, done("c.1")), (4.5, Started("c.2")), (6.5, done("c.2")),
        (6.6, Task("exporting as docker", "started", 0.0)), (8.6, Task("exporting as docker", "done", 2.0)),
        (8.6, Task("publishing 2 layers", "started", 0.0)), (9.0, Task("publishing 2 layers", "done", 0.4)), (9.0, DONE),
    )  # fmt: skip


def test_bars_stand_where_and_when_steps_ran() -> None:
    found = check(chrome_bytes(fleet_build()))
    named = steps(found)
    (a,), (b,), (c,) = named["a.1"], named["b.1"], named["c.1"]
    assert [row(found, each) for each in (a, b, c)] == ["w1", "w2", "here"]
    assert (a["ts"], a["dur"]) == (1_200_000, 3_000_000)
    assert a["args"]["waited_seconds"] == pytest.approx(0.2)
    assert (a["args"]["key"], a["args"]["reason"], a["args"]["why"]) == ("ka", "files-changed", "it changed")
    assert (a["args"]["status"], a["args"]["worker"], a["args"]["instruction"]) == ("ran", "w1", "[a 1/1] RUN long")
    assert (b["ts"], b["dur"]) == (1_500_000, 1_000_000)
    others = {each["cat"]: each["dur"] for each in bars(found) if "id" not in each["args"]}
    assert others == {"preparing": 500_000, "exporting": 2_000_000, "publishing": 400_000}
    assert found["otherData"]["seconds"] == 9.0
    assert sum(each["dur"] for each in bars(found)) == 500_000 + 3_000_000 + 1_000_000 + 200_000 + 2_000_000 + 2_400_000


def test_the_critical_path_is_marked_and_has_arrows() -> None:
    found = check(chrome_bytes(fleet_build()))
    assert found["otherData"]["critical_path"] == ["a.1", "c.1", "c.2"]
    marked = {each["args"]["id"] for each in bars(found) if "critical" in each["cat"].split(",")}
    assert marked == {"a.1", "c.1", "c.2"}
    assert sum(each["ph"] == "s" for each in found["traceEvents"]) == 2


def test_what_a_worker_did_not_end_is_told_apart_from_what_another_did() -> None:
    timeline = told(
        (0.0, NODES), (1.0, Started("a.1", "", "", "ka")), (1.0, Placed("a.1", "w1", "w1")), (2.0, Waiting("a.1", "w1 left")),
        (3.0, Placed("a.1", "w2", "w2")), (4.0, Placed("a.1", "w3", "w3")), (5.0, Placed("a.1", "w2", "w2")),
        (6.0, done("a.1", "w2")), (6.0, DONE),
    )  # fmt: skip
    found = check(chrome_bytes(timeline))
    told_of = {row(found, each): (each["ts"], each["dur"], each["args"]["status"]) for each in steps(found)["a.1"]}
    assert told_of == {"w1": (1_000_000, 1_000_000, "again"), "w2": (3_000_000, 3_000_000, "ran"), "w3": (4_000_000, 2_000_000, "late")}
    assert [each["args"]["critical"] for each in steps(found)["a.1"]] == [False, True, False]


def test_a_worker_with_one_slot_has_one_row() -> None:
    timeline = told(
        (0.0, NODES), (1.0, Started("a.1")), (1.0, Started("b.1")), (1.0, Placed("a.1", "w1", "w1")), (2.0, Placed("b.1", "w1", "w1")),
        (2.03, done("a.1", "w1")), (3.0, done("b.1", "w1")), (3.0, DONE),
    )  # fmt: skip
    found = check(chrome_bytes(timeline))
    assert [(row(found, each), each["ts"], each["dur"]) for name in ("a.1", "b.1") for each in steps(found)[name]] == [
        ("w1", 1_000_000, 1_000_000), ("w1", 2_000_000, 1_000_000),
    ]  # fmt: skip


def test_a_step_that_comes_back_to_this_machine_stands_in_both_rows() -> None:
    timeline = told(
        (0.0, NODES), (1.0, Started("a.1")), (1.0, Placed("a.1", "w1", "w1")), (2.0, Placed("a.1", "this machine: no space")),
        (3.0, done("a.1")), (3.0, DONE),
    )  # fmt: skip
    found = check(chrome_bytes(timeline))
    assert {row(found, each): each["args"]["status"] for each in steps(found)["a.1"]} == {"w1": "again", "here": "ran"}


def test_what_was_known_and_what_never_ended_is_there() -> None:
    timeline = told(
        (0.0, NODES), (0.1, Finished("a.1", "cached", 0.0, 5, "from there", "same-recipe", "ka")), (1.0, Started("b.1")),
        (2.0, Task("fetching 2.0 MB from there", "started", 0.0)), (3.0, Finished("b.1", "failed", 0.0, None, "")), (3.5, Started("c.1")),
        (4.0, Started("c.2")),
    )  # fmt: skip
    found = check(chrome_bytes(timeline))
    (a,), (b,), (c,) = (steps(found)[name] for name in ("a.1", "b.1", "c.1"))
    assert (a["dur"], a["args"]["status"], a["args"]["reason"], a["args"]["key"]) == (0, "cached", "same-recipe", "ka")
    assert b["args"]["status"] == "failed"
    assert c["args"]["status"] == "cancelled"
    assert [each["args"]["status"] for each in bars(found) if each["cat"] == "fetching"] == ["cancelled"]
    assert not found["otherData"]["complete"]
    assert not found["otherData"]["ok"]


def test_texts_that_no_reader_takes_are_made_such() -> None:
    evil = "\udc80\x1b[31m\n\u202e"
    nodes = Announced((NodeInfo(evil, 1, "RUN", "a", "run", (evil,)),))
    timeline = told((0.0, nodes), (0.0, Started(evil, evil, evil)), (0.5, Placed(evil, evil, evil)), (1.0, done(evil, evil)), (1.0, DONE))
    data = chrome_bytes(timeline)
    check(data)
    assert b"\\udc80" not in data
    assert b"\\u001b" not in data


names = st.sampled_from(["a.1", "b.1", "c.1", "c.2", "?"])
workers = st.sampled_from(["", "w1", "w2"])
events = st.one_of(
    st.just(NODES),
    names.map(Started),
    st.builds(lambda name, worker: Placed(name, worker, worker), names, workers),
    names.map(lambda name: Waiting(name, "so")),
    st.builds(done, names, workers),
    st.builds(lambda name, status: Finished(name, status, 0.0, None, ""), names, st.sampled_from(["cached", "failed", "cancelled"])),
    st.builds(lambda name, status: Task(name, status, 0.2), st.sampled_from(["exporting", "fetching 1"]), st.sampled_from(["started", "done", "failed"])),
    st.just(DONE),
)


@given(st.lists(st.tuples(st.integers(-2, 5), events), max_size=60))
def test_whatever_is_reported_a_viewer_takes_it(given: list[tuple[int, Event]]) -> None:
    at, timed = 0.0, []
    for step, event in given:
        at += step / 10  # also back: a clock may be set
        timed.append((1000.0 + at, event))
    check(chrome_bytes(chronicle(timed, 1000.0)))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=40))
def test_lanes_hold_no_two_at_the_same_time_and_are_no_more_than_needed(given: list[tuple[int, int]]) -> None:
    spans = sorted((start, start + length) for start, length in given)
    found = lanes(spans)
    for lane in set(found):
        mine = [span for span, each in zip(spans, found, strict=True) if each == lane]
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(mine))
    most = max((sum(start <= at < max(end, start + 1) for start, end in spans) for at in range(30)), default=0)
    assert max(found, default=-1) + 1 <= most


def test_the_critical_path_leads_through_what_was_known() -> None:
    inputs = {"d": ["known"], "known": ["b", "a"], "b": ["a"], "a": [], "x": ["a"]}
    spans = {"a": (0.0, 1.0), "b": (1.0, 2.0), "d": (3.0, 4.0), "x": (1.0, 3.5)}
    assert critical_chain(spans, inputs) == ("a", "b", "d")
    assert critical_chain({}, inputs) == ()


def test_circles_and_long_chains_end() -> None:
    assert critical_chain({"a": (0.0, 1.0), "b": (1.0, 2.0)}, {"a": ["b", "k"], "b": ["a"], "k": ["k", "l"], "l": ["k"]}) == ("a", "b")
    many = 20_000
    chain = {str(number): [str(number - 1)] * 3 for number in range(1, many)}
    spans = {str(number): (float(number), number + 1.0) for number in random.Random(1).sample(range(many), many // 2)}
    assert len(critical_chain(spans, chain)) == many // 2
