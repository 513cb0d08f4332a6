"""How long steps took, and what their keys were made of when they were last built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.graph import Graph, Node
from compiler.records import RUNS_KEPT, StepRecords
from tests.compiler.graphs import RUN, graph, scratch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTS = {"operation": {}, "platform": "p", "rootfs": "r", "sources": []}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path))
    yield opened
    opened.close()


def node(name: str = "1", command: str = "x") -> Node:
    return Node(name, "run", "s", "", None, ("scratch",), RUN._replace(argv=(command,)))


def of(*nodes: Node) -> Graph:
    return graph(scratch(), *nodes)


def ran(store: LmdbStore, records: StepRecords, step: Node, seconds: float | None) -> None:
    store.commit(Batch(records=tuple(records.ran(step, PARTS, seconds))))


def test_nothing_is_expected_of_what_never_ran(store: LmdbStore) -> None:
    records = StepRecords(store, "file")
    assert records.expected(of(node())) == {}
    assert records.last_parts(node()) is None


def test_the_median_of_the_last_runs_counts(store: LmdbStore) -> None:
    records = StepRecords(store, "file")
    for seconds in (9.0, 1.0, 2.0):
        ran(store, records, node(), seconds)
    assert records.expected(of(node())) == {"1": 2.0}
    for _ in range(RUNS_KEPT):
        ran(store, records, node(), 5.0)
    assert records.expected(of(node())) == {"1": 5.0}


def test_the_same_operation_elsewhere_takes_as_long(store: LmdbStore) -> None:
    ran(store, StepRecords(store, "file"), node(), 3.0)
    assert StepRecords(store, "other").expected(of(node("7"))) == {"7": 3.0}


def test_a_changed_operation_takes_as_long_as_what_stood_there(store: LmdbStore) -> None:
    records = StepRecords(store, "file")
    ran(store, records, node(), 3.0)
    assert records.expected(of(node(command="changed"))) == {"1": 3.0}
    assert StepRecords(store, "other").expected(of(node(command="changed"))) == {}


def test_a_hit_leaves_times_alone_and_notes_the_parts(store: LmdbStore) -> None:
    records = StepRecords(store, "file")
    ran(store, records, node(), None)
    assert records.expected(of(node())) == {}
    assert records.last_parts(node()) == PARTS
    ran(store, records, node(), 3.0)
    ran(store, records, node(), None)
    assert records.expected(of(node())) == {"1": 3.0}
    assert records.ran(node(), PARTS, None) == [], "what is known is not written again"


def test_parts_are_of_a_place_in_a_file(store: LmdbStore) -> None:
    records = StepRecords(store, "file")
    ran(store, records, node(), 1.0)
    assert records.last_parts(node(command="changed")) == PARTS
    assert records.last_parts(node("2")) is None
    assert StepRecords(store, "other").last_parts(node()) is None
