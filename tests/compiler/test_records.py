"""How long steps took, and what their keys were made of when they were last built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.graph import Node
from compiler.keys import Keys
from compiler.records import RUNS_KEPT, Expected, StepRecords
from tests.compiler.graphs import RUN, graph, scratch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path))
    yield opened
    opened.close()


def node(name: str = "1", command: str = "x") -> Node:
    return Node(name, "run", "s", f"RUN {command}", None, ("scratch",), RUN._replace(argv=(command,)))


def records_of(store: LmdbStore, step: Node, file: str = "file") -> StepRecords:
    made = graph(scratch(), step)
    return StepRecords(store, file, made, Keys(made, lambda _: None))


def ran(store: LmdbStore, step: Node, seconds: float | None, file: str = "file") -> None:
    records = records_of(store, step, file)
    rows = [*records.made(step, seconds), records.built("build", {step.id: records.place_now(step, "content")})]
    store.commit(Batch(records=tuple(rows)))


def expected(store: LmdbStore, step: Node, file: str = "file") -> Expected | None:
    return records_of(store, step, file).expected().get(step.id)


def test_nothing_is_known_of_what_never_ran(store: LmdbStore) -> None:
    records = records_of(store, node())
    assert records.expected() == {}
    assert (records.before(node()), records.place("1"), records.ever_made("1")) == ("", None, False)


def test_the_median_of_the_last_runs_counts_with_its_spread(store: LmdbStore) -> None:
    for seconds in (9.0, 1.0, 2.0):
        ran(store, node(), seconds)
    assert expected(store, node()) == Expected(2.0, 1.0, 9.0, 3)
    for _ in range(RUNS_KEPT):
        ran(store, node(), 5.0)
    assert expected(store, node()) == Expected(5.0, 5.0, 5.0, RUNS_KEPT)


def test_the_same_operation_elsewhere_takes_as_long(store: LmdbStore) -> None:
    ran(store, node(), 3.0)
    assert expected(store, node("7"), "other") == Expected(3.0, 3.0, 3.0, 1)


def test_a_changed_operation_takes_as_long_as_what_stood_there(store: LmdbStore) -> None:
    ran(store, node(), 3.0)
    assert expected(store, node(command="changed")) == Expected(3.0, 3.0, 3.0, 1)
    assert expected(store, node(command="changed"), "other") is None


def test_a_hit_leaves_times_alone(store: LmdbStore) -> None:
    ran(store, node(), None)
    assert expected(store, node()) is None
    ran(store, node(), 3.0)
    ran(store, node(), None)
    assert expected(store, node()) == Expected(3.0, 3.0, 3.0, 1)


def test_the_nearest_earlier_step(store: LmdbStore) -> None:
    """The same place if it did the same; else the same operation in this file; else the place; else another file."""
    ran(store, node("1", "a"), 1.0)
    ran(store, node("2", "b"), 1.0)
    recipe = {name: records_of(store, node(name, name)).preimage(node(name, name)).recipe for name in ("a", "b")}
    assert records_of(store, node("1", "a")).before(node("1", "a")) == recipe["a"]
    assert records_of(store, node("1", "b")).before(node("1", "b")) == recipe["b"], "a line that moved up"
    assert records_of(store, node("1", "new")).before(node("1", "new")) == recipe["a"]
    assert records_of(store, node("9", "new")).before(node("9", "new")) == ""
    moved = node("9", "a")._replace(definition=RUN._replace(argv=("a",), env=(("NEW", "1"),)))
    assert records_of(store, moved).before(moved) == recipe["a"], "the same line, elsewhere and with another variable"
    assert records_of(store, node("1", "b"), "other").before(node("1", "b")) == recipe["b"]


def test_what_a_key_was_made_of_is_read_again(store: LmdbStore) -> None:
    ran(store, node(), 1.0)
    records = records_of(store, node())
    found = records.earlier(records.preimage(node()).recipe)
    assert found is not None
    assert found.operation["argv"] == ["x"]
    assert records.ever_made("1")
    assert not records_of(store, node(command="y")).ever_made("1")


def test_secret_values_do_not_reach_a_record(store: LmdbStore) -> None:
    """I4, also for build arguments whose name says what they are."""
    step = node()._replace(definition=RUN._replace(env=(("API_TOKEN", "hunter2hunter2"), ("V", "1"))))
    ran(store, step, 1.0)
    records = records_of(store, step)
    now = records.preimage(step)
    found = records.earlier(now.recipe)
    assert found is not None
    assert dict(found.operation["env"])["V"] == "1"
    assert "hunter2" not in repr(found)
    other = step._replace(definition=RUN._replace(env=(("API_TOKEN", "other"), ("V", "1"))))
    assert records_of(store, other).preimage(other).operation != found.operation, "that it changed is known"


def test_damaged_records_are_none(store: LmdbStore) -> None:
    ran(store, node(), 1.0)
    for table in ("places", "preimages"):
        damaged = tuple((table, key, b"\xff{") for key, _ in store.scan(table))  # type: ignore[arg-type]
        store.commit(Batch(records=damaged))  # type: ignore[arg-type]
    records = records_of(store, node())
    assert (records.expected(), records.place("1")) == ({}, None)
    assert records.earlier(records.preimage(node()).recipe) is None
