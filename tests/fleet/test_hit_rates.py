"""How many results are found in the cache, as whoever looks at the fleet sees it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, key

from cache.server.lookups import MAX_NAMESPACES, Lookups
from cache.server.meter import NoMeter
from compiler.cli.fleet import _text
from compiler.fleet.asking import state_json

K = key(1)


def counts(fleet: Scheduled, who: str = "ann") -> tuple[int, int]:
    state = fleet.state(who)
    return state.lookups, state.hits


def test_what_is_asked_for_and_what_is_found_is_counted(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    assert counts(fleet) == (0, 0)
    first = fleet.build()
    first.execute(K)
    worker.done(worker.lease())
    first.take("done")
    assert counts(fleet) == (1, 0)
    fleet.again()
    for number in range(2):
        fleet.build().execute(K)
        fleet.wait_for(lambda number=number: counts(fleet) == (number + 1, number + 1))  # type: ignore[misc]


def test_each_sees_those_of_the_namespaces_that_they_may_read(fleet: Scheduled) -> None:
    meter = fleet.service._watching._lookups
    meter.asked("", 1, 2)
    meter.asked("other", 10, 20)
    assert counts(fleet, "ann") == (33, 11)
    assert counts(fleet, "bob") == (3, 1)
    assert counts(fleet, "limited") == (30, 10)
    assert counts(fleet, "blind") == (0, 0)
    page = fleet.service.state(lambda namespace: namespace == "other")
    assert (page.lookups, page.hits) == (30, 10)


def test_watching_goes_on_as_results_are_found(fleet: Scheduled) -> None:
    call = fleet.fleet().Watch(pb.WatchRequest(), metadata=[("name", "ann")], timeout=20)
    assert next(call).lookups == 0
    fleet.service._watching._lookups.asked("", 1, 0)
    assert next(call).hits == 1
    call.cancel()


def test_the_first_line_says_it_once_there_is_something_to_say() -> None:
    state = pb.FleetState(at=1.0)
    state.workers.add(name="w1", slots=2, busy=1, state="ready", since=1.0)
    assert _text(state_json(state)).startswith("1 worker, 1 of 2 slots busy, 0 actions wait\n")
    state.lookups, state.hits = 150, 120
    end = "0 actions wait; 120 of 150 cache look-ups hit\n"
    assert _text(state_json(state)).startswith(f"1 worker, 1 of 2 slots busy, {end}")
    del state.workers[:]
    assert _text(state_json(state)).startswith(f"no workers; {end}")
    assert [state_json(state)[name] for name in ("lookups", "hits")] == [150, 120]


def test_namespaces_are_not_counted_without_a_bound() -> None:
    lookups = Lookups(NoMeter())
    for number in range(MAX_NAMESPACES + 10):
        lookups.asked(str(number), 1, 1)
    assert lookups.seen(lambda _: True) == (2 * MAX_NAMESPACES, MAX_NAMESPACES)
