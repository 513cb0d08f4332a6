"""The graph: acyclic because nothing else can be added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.compiler.graphs import graph, graphs, scratch, stage, step

if TYPE_CHECKING:
    from compiler.graph import Graph


def test_an_input_must_be_there_first() -> None:
    with pytest.raises(ValueError, match="node a"):
        graph(scratch(), step("a", "b"))


def test_a_node_cannot_need_itself() -> None:
    with pytest.raises(ValueError, match="node a"):
        graph(scratch(), step("a", "a"))


def test_equal_nodes_may_come_twice_and_others_may_not() -> None:
    made = graph(scratch(), scratch(), step("a", "scratch"))
    assert len(made) == 2
    with pytest.raises(ValueError, match="node a"):
        made.add(step("a", "scratch", kind="copy"))


def test_a_chain_is_the_layers_of_a_root_filesystem_lowest_first() -> None:
    made = graph(
        scratch(), step("1", "scratch"), stage("a", "1"), step("2", "scratch"), stage("b", "2"), step("3", "a", "b"), stage("end", "3")
    )
    assert [node.id for node in made.chain("end")] == ["scratch", "1", "a", "3", "end"]


@settings(deadline=None, max_examples=25)
@given(graphs())
def test_as_a_networkx_graph_it_says_the_same(made: Graph) -> None:
    import networkx

    other = made.digraph()
    assert networkx.is_directed_acyclic_graph(other)
    assert set(other) == {node.id for node in made}
    assert set(other.edges) == {(name, node.id) for node in made for name in node.inputs}
    places = {node.id: place for place, node in enumerate(made)}
    assert all(places[before] < places[after] for before, after in other.edges)
