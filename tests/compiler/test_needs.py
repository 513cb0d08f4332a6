"""Which results a build cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.needs import needed
from tests.compiler.graphs import graph, graphs, scratch, stage, step

if TYPE_CHECKING:
    from compiler.graph import Graph

COPIES = graph(
    scratch(),
    step("tool", "scratch"),
    stage("tools", "tool"),
    step("copy", "scratch", "tools", kind="copy"),
    stage("end", "copy"),
)


def test_everything_that_the_target_is_made_of() -> None:
    assert needed(COPIES, set()) == {"scratch", "tool", "tools", "copy", "end"}


def test_what_a_known_copy_took_from_is_not_needed() -> None:
    assert needed(COPIES, {"copy"}) == {"scratch", "copy", "end"}


def test_a_known_step_still_needs_the_layers_below_it() -> None:
    chain = graph(scratch(), step("1", "scratch"), step("2", "1"), stage("s", "2"))
    assert needed(chain, {"2"}) == {"scratch", "1", "2", "s"}


def test_a_stage_beside_the_target_is_not_needed() -> None:
    beside = graph(scratch(), step("1", "scratch"), stage("one", "1"), step("2", "scratch"), stage("two", "2"), target="one")
    assert needed(beside, set()) == {"scratch", "1", "one"}


@settings(deadline=None)
@given(graphs(), st.data())
def test_knowing_more_never_needs_more(made: Graph, data: st.DataObject) -> None:
    steps = [node.id for node in made if node.is_step]
    known = data.draw(st.sets(st.sampled_from(steps))) if steps else set()
    more = known | (data.draw(st.sets(st.sampled_from(steps))) if steps else set())
    assert needed(made, more) <= needed(made, known)
    assert {node.id for node in made.chain(made.target)} <= needed(made, set(steps))
