"""The first result of an action is the one that counts, also across a restart of the server."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, held, key

K = key(1)


def test_what_ends_later_on_another_worker_takes_nothing_from_those_who_come_after(fleet: Scheduled) -> None:
    """Two workers had it, as it was late; one build heard of the first result, and then the server started again."""
    first = fleet.worker().joined()
    build = fleet.build()
    build.execute(K, seconds=1.0)
    lease = first.lease()
    second = fleet.worker("w2").joined()
    fleet.clock.ahead += 12
    first.send(renewal=pb.WorkerMessage.Renewal(leases=[lease.lease]))
    other = second.lease()
    outcome = first.outcome(lease)
    first.done(lease, outcome)
    assert build.take("done").outcome == outcome
    fleet.again()
    second = fleet.worker("w2", leases=[held(other)]).joined()
    assert not second.welcome.lost
    waiting = fleet.build("bob")
    waiting.execute(K)
    later = second.outcome(other)
    assert later != outcome
    second.done(other, later)
    assert second.take("settled")
    assert waiting.take("done").outcome == outcome
    late = fleet.build()
    late.execute(K)
    assert late.take("done").outcome == outcome, "and so it stays"


def test_what_is_to_be_made_anew_takes_the_place_of_the_first(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    for anew in (False, True):
        build.execute(K, anew=anew)
        lease = worker.lease()
        outcome = worker.outcome(lease)
        worker.done(lease, outcome)
        assert build.take("done").outcome == outcome
    other = fleet.build("bob")
    other.execute(K)
    assert other.take("done").outcome == outcome
