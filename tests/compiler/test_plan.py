"""The plan: events in, lists of commands out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.needs import needed
from compiler.plan import Begin, Broken, Complete, Done, Plan, Stop, Widened
from tests.compiler.graphs import graph, graphs, result, scratch, stage, step

if TYPE_CHECKING:
    from compiler.graph import Graph

DIAMOND = graph(
    scratch(),
    step("base", "scratch"),
    stage("b", "base"),
    step("left", "b"),
    stage("l", "left"),
    step("right", "b"),
    stage("r", "right"),
    step("join", "l", "r", kind="copy"),
    stage("end", "join"),
)


def test_a_chain_runs_one_after_the_other() -> None:
    chain = graph(scratch(), step("1", "scratch"), step("2", "1"), stage("s", "2"))
    plan = Plan(chain, {}, {}, 4)
    assert plan.start() == [Begin("1")]
    assert plan.handle(Done("1", result("1"))) == [Begin("2")]
    assert plan.handle(Done("2", result("2"))) == [Complete(True)]
    assert set(plan.results) == {"1", "2"}


def test_independent_stages_run_at_once_and_what_needs_both_waits_for_both() -> None:
    plan = Plan(DIAMOND, {}, {}, 4)
    assert plan.start() == [Begin("base")]
    assert plan.handle(Done("base", result())) == [Begin("left"), Begin("right")]
    assert plan.handle(Done("right", result())) == []
    assert plan.handle(Done("left", result())) == [Begin("join")]
    assert plan.handle(Done("join", result())) == [Complete(True)]


def test_slots_bound_what_runs_at_once() -> None:
    plan = Plan(DIAMOND, {}, {}, 1)
    plan.start()
    assert plan.handle(Done("base", result())) == [Begin("left")]
    assert plan.handle(Done("left", result())) == [Begin("right")]


def test_more_slots_begin_more_at_once_and_fewer_change_nothing() -> None:
    plan = Plan(DIAMOND, {}, {}, 1)
    plan.start()
    assert plan.handle(Widened(3)) == [], "nothing waits"
    assert plan.handle(Widened(1)) == []
    assert plan.handle(Done("base", result())) == [Begin("left"), Begin("right")]
    plan = Plan(DIAMOND, {"base": result()}, {}, 1)
    assert plan.start() == [Begin("left")]
    assert plan.handle(Widened(2)) == [Begin("right")]
    plan.handle(Broken("left"))
    assert plan.handle(Widened(9)) == [], "after a failure nothing begins"


def test_the_longest_expected_path_goes_first() -> None:
    assert_order(DIAMOND, {"left": 1.0, "right": 9.0}, ["base", "right", "left", "join"])


def test_the_whole_path_counts_not_just_the_step() -> None:
    two = graph(
        scratch(),
        step("a", "scratch"),
        stage("A", "a"),
        step("b1", "scratch"),
        step("b2", "b1"),
        stage("B", "b2"),
        step("join", "A", "B", kind="copy"),
        stage("end", "join"),
    )
    assert_order(two, {"a": 5.0, "b1": 1.0, "b2": 8.0}, ["b1", "b2", "a", "join"])


def test_equal_priorities_go_in_the_order_of_the_file() -> None:
    assert_order(DIAMOND, {"left": 2.0, "right": 2.0}, ["base", "left", "right", "join"])


def assert_order(given_graph: Graph, expected: dict[str, float], order: list[str]) -> None:
    plan = Plan(given_graph, {}, expected, 1)
    commands = plan.start()
    seen = []
    while not isinstance(commands[-1], Complete):
        (begin,) = commands
        assert isinstance(begin, Begin)
        seen.append(begin.node)
        commands = plan.handle(Done(begin.node, result()))
    assert seen == order


def test_what_is_known_does_not_run() -> None:
    plan = Plan(DIAMOND, {"base": result(), "left": result()}, {}, 4)
    assert plan.start() == [Begin("right")]
    assert plan.handle(Done("right", result())) == [Begin("join")]


def test_nothing_to_do_completes_at_once() -> None:
    hits = {name: result(name) for name in ("base", "left", "right", "join")}
    assert Plan(DIAMOND, hits, {}, 4).start() == [Complete(True)]
    assert Plan(graph(scratch(), stage("s", "scratch")), {}, {}, 1).start() == [Complete(True)]


def test_a_stage_that_was_only_copied_from_is_not_made_again() -> None:
    """The copy is known, so nobody asks for what it took."""
    plan = Plan(DIAMOND, {"base": result(), "left": result(), "join": result()}, {}, 4)
    assert plan.start() == [Complete(True)]
    assert "right" not in plan.wanted


def test_a_known_step_above_a_missing_one_does_not_wait_for_it() -> None:
    """The COPY at the top is known (by --link, say), the RUN between them builds only on the missing one."""
    chain = graph(scratch(), step("1", "scratch"), step("2", "1"), step("3", "2"), stage("s", "3"))
    plan = Plan(chain, {"2": result()}, {}, 4)
    assert plan.start() == [Begin("1")]
    assert plan.handle(Done("1", result())) == [Begin("3")]


def test_a_failure_stops_what_runs_once_and_begins_nothing_more() -> None:
    plan = Plan(DIAMOND, {}, {}, 4)
    plan.start()
    plan.handle(Done("base", result()))
    assert plan.handle(Broken("left")) == [Stop()]
    assert plan.handle(Broken("right")) == [Complete(False)]


def test_a_step_that_finishes_after_a_failure_is_kept_and_begins_nothing() -> None:
    plan = Plan(DIAMOND, {}, {}, 4)
    plan.start()
    plan.handle(Done("base", result()))
    plan.handle(Broken("left"))
    assert plan.handle(Done("right", result("right"))) == [Complete(False)]
    assert plan.results["right"] == result("right")


def test_a_failure_with_nothing_else_running_ends_the_build_without_a_stop() -> None:
    plan = Plan(DIAMOND, {}, {}, 4)
    plan.start()
    assert plan.handle(Broken("base")) == [Complete(False)]


@pytest.mark.parametrize("event", [Done("join", result()), Broken("nobody")])
def test_an_event_about_what_does_not_run_is_refused_with_its_story(event: Done | Broken) -> None:
    plan = Plan(DIAMOND, {}, {}, 4)
    plan.start()
    with pytest.raises(ValueError, match=r"running are \['base'\]"):
        plan.handle(event)


def steps_below(made: Graph, name: str) -> set[str]:
    """All steps that a node needs somehow: those it takes from, and their chains; a plain recursion."""
    found: set[str] = set()
    for other in made[name].inputs:
        for node in made.chain(other):
            if node.is_step:
                found.add(node.id)
    return found


@settings(deadline=None, max_examples=150)
@given(graphs(), st.data())
def test_any_graph_in_any_order(made: Graph, data: st.DataObject) -> None:
    steps = [node.id for node in made if node.is_step]
    hits = {name: result(name) for name in data.draw(st.sets(st.sampled_from(steps)) if steps else st.just(set()))}
    expected = {name: data.draw(st.floats(0, 100)) for name in steps}
    slots = data.draw(st.integers(1, 4))
    fails = data.draw(st.sets(st.sampled_from(steps), max_size=1) if steps and data.draw(st.booleans()) else st.just(set()))
    plan = Plan(made, hits, expected, slots)
    begun: list[str] = []
    stops = 0
    failed = False
    commands = plan.start()
    while True:
        for command in commands:
            if isinstance(command, Begin):
                assert not failed, "nothing begins after a failure"
                assert steps_below(made, command.node) <= set(plan.results), "its inputs are done"
                begun.append(command.node)
            elif isinstance(command, Stop):
                stops += 1
        assert len(plan.running) <= slots
        if any(isinstance(command, Complete) for command in commands):
            break
        assert plan.running, "it never waits for nothing"
        if data.draw(st.booleans()):
            slots = max(slots, wider := data.draw(st.integers(1, 6)))
            commands = plan.handle(Widened(wider))
            continue
        name = data.draw(st.sampled_from(sorted(plan.running)))
        if name in fails:
            failed = True
            commands = plan.handle(Broken(name))
        else:
            commands = plan.handle(Done(name, result(name)))
    assert commands[-1] == Complete(not failed)
    assert not plan.running
    assert stops <= 1
    assert len(begun) == len(set(begun)), "each once"
    wanted = {name for name in needed(made, hits) if made[name].is_step} - set(hits)
    assert set(begun) <= wanted, "nothing unneeded, nothing known"
    if not failed:
        assert set(begun) == wanted
        assert {node.id for node in made.chain(made.target) if node.is_step} <= set(plan.results)


@settings(deadline=None, max_examples=50)
@given(graphs(), st.integers(1, 4))
def test_the_same_build_makes_the_same_decisions(made: Graph, slots: int) -> None:
    def story() -> list[object]:
        plan = Plan(made, {}, {}, slots)
        told: list[object] = []
        commands = plan.start()
        while commands:
            told += commands
            commands = plan.handle(Done(sorted(plan.running)[0], result())) if plan.running else []
        return told

    assert story() == story()
