"""The scheduler's service with workers that come, take nothing new, or leave."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, key

K = key(1)


def test_a_cordoned_worker_that_joins_gets_nothing_though_something_waits(fleet: Scheduled) -> None:
    build = fleet.build()
    build.execute(K)
    build.take("queued")
    worker = fleet.worker(cordoned=True).joined()
    assert worker.none("lease")
    fleet.fleet().Cordon(pb.CordonRequest(worker="w1", off=True), metadata=[("name", "root")])
    worker.done(worker.lease())
    assert build.take("done").worker == "w1"


def test_a_worker_that_gives_back_since_it_leaves_gets_the_action_again_when_it_was_started_anew(fleet: Scheduled) -> None:
    worker, build = fleet.worker(incarnation="i1").joined(), fleet.build()
    build.execute(K)
    back = pb.WorkerMessage.LeaseGivenBack(lease=worker.lease().lease, reason="the worker was stopped", leaving=True)
    worker.send(given_back=back)
    assert "was stopped" in build.take("queued", again=True).reason
    assert worker.none("lease")
    assert fleet.state().workers[0].state == "draining"
    same = fleet.worker(incarnation="i1").joined()
    assert same.none("lease"), "it still leaves"
    anew = fleet.worker(incarnation="i2").joined()
    anew.done(anew.lease())
    assert build.take("done").worker == "w1"


def test_a_draining_worker_that_comes_back_gets_nothing_though_something_waits(fleet: Scheduled) -> None:
    worker = fleet.worker(incarnation="i1").joined()
    worker.send(drain=pb.WorkerMessage.Drain())
    fleet.wait_for(lambda: fleet.state().workers[0].state == "draining")
    build = fleet.build()
    build.execute(K)
    build.take("queued")
    back = fleet.worker(incarnation="i1").joined()
    assert back.none("lease")
    anew = fleet.worker(incarnation="i2").joined()
    assert anew.lease().action.key == K, "a worker that was started anew does not drain"


def test_a_draining_worker_gets_nothing_from_a_server_that_started_anew(fleet: Scheduled) -> None:
    fleet.worker(incarnation="i1").joined()
    fleet.again()
    build = fleet.build()
    build.execute(K)
    build.take("queued")
    back = fleet.worker(incarnation="i1", draining=True).joined()
    assert back.none("lease")
    assert fleet.state().workers[0].state == "draining"
    anew = fleet.worker(incarnation="i2").joined()
    assert anew.lease().action.key == K, "nobody said that the worker is to take nothing for good"


def test_a_worker_that_began_to_drain_while_it_was_away_gets_nothing(fleet: Scheduled) -> None:
    fleet.worker(incarnation="i1").joined()
    build = fleet.build()
    back = fleet.worker(incarnation="i1", draining=True).joined()
    build.execute(K)
    build.take("queued")
    assert back.none("lease")
