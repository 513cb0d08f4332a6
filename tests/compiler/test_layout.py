"""The drawing of a graph: nothing on top of anything else, whatever the graph."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.views.layout import Box, Item, Layout, lay_out


@st.composite
def item_lists(draw: st.DrawFn) -> list[Item]:
    """Nodes in some groups, each with inputs among those before it."""
    items: list[Item] = []
    for number in range(draw(st.integers(1, 25))):
        group = f"g{draw(st.integers(0, 6))}"
        inputs = draw(st.lists(st.sampled_from([item.id for item in items]), max_size=3)) if items else []
        items.append(Item(f"n{number}", group, tuple(inputs)))
    return items


def overlap(one: Box, other: Box) -> bool:
    apart_x = one.x + one.width <= other.x or other.x + other.width <= one.x
    apart_y = one.y + one.height <= other.y or other.y + other.height <= one.y
    return not (apart_x or apart_y)


def drawn(items: list[Item]) -> Layout:
    return lay_out(items, frozenset(item.group for item in items))


@given(item_lists())
def test_no_two_boxes_overlap_and_all_are_on_the_page(items: list[Item]) -> None:
    layout = drawn(items)
    assert layout.boxes.keys() == {item.id for item in items}
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        assert not overlap(one, other)
    for box in (*layout.boxes.values(), *layout.groups.values()):
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= layout.width
        assert box.y + box.height <= layout.height


@given(item_lists())
def test_frames_hold_their_own_nodes_and_no_others(items: list[Item]) -> None:
    layout = drawn(items)
    for item in items:
        for group, frame in layout.groups.items():
            assert overlap(layout.boxes[item.id], frame) == (group == item.group)


@given(item_lists())
def test_edges_go_down_and_through_no_box(items: list[Item]) -> None:
    layout = drawn(items)
    assert {(edge.source, edge.target) for edge in layout.edges} == {(name, i.id) for i in items for name in i.inputs}
    for edge in layout.edges:
        ys = [y for _, y in edge.points]
        assert ys == sorted(ys)
        assert ys[0] < ys[-1]
        for (x1, y1), (x2, y2) in itertools.pairwise(edge.points):
            line = Box(min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1))
            for box in layout.boxes.values():
                inside = Box(box.x + 1, box.y + 1, box.width - 2, box.height - 2)
                assert not overlap(line, inside), f"{edge} runs through {box}"


def test_a_chain_is_a_straight_line() -> None:
    layout = drawn([Item("a", "g", ()), Item("b", "g", ("a",)), Item("c", "g", ("b",))])
    assert len({box.x for box in layout.boxes.values()}) == 1
    assert all(len(edge.points) == 2 for edge in layout.edges)


@pytest.mark.alone
def test_three_hundred_nodes_take_no_time() -> None:
    items = [Item(f"n{n}", f"g{n // 10}", tuple({f"n{max(0, n - 1)}", f"n{n // 2}"} - {f"n{n}"})) for n in range(300)]
    began = time.process_time()
    layout = drawn(items)
    assert time.process_time() - began < 1.0
    assert len(layout.boxes) == 300
