"""Actions that a build wants anew: made for it alone, under the key that they have."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from scheduled import SECONDS, Scheduled, held, key

K = key(1)


def test_a_result_that_is_there_does_not_do_and_is_replaced(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    first, second, third = fleet.build(), fleet.build(), fleet.build("bob")
    first.execute(K)
    worker.done(worker.lease())
    old = first.take("done").outcome
    second.execute(K, anew=True)
    lease = worker.lease()
    assert lease.action.key == K, "what is signed is that of the key"
    worker.done(lease)
    new = second.take("done").outcome
    assert new.result.layer.tar != old.result.layer.tar
    third.execute(K)
    assert third.take("done").outcome == new
    assert worker.none("lease")


def test_builds_that_want_the_same_as_it_is_have_nothing_to_do_with_it(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=4).joined()
    plain, also, anew, too = fleet.build(), fleet.build("bob"), fleet.build(), fleet.build("bob")
    plain.execute(K)
    shared = worker.lease()
    also.execute(K)
    also.take("started")
    anew.execute(K, anew=True)
    own = worker.lease()
    too.execute(K, anew=True)
    other = worker.lease()
    assert len({shared.lease, own.lease, other.lease}) == 3
    assert [each.key for each in fleet.state().running] == [K] * 3
    worker.log(own.lease, b"own\n")
    worker.fail(own)
    assert anew.take("log").data == b"own\n"
    assert anew.take("done").outcome.failure.exit_status == 3
    anew.send(cancel=K)
    for build in (plain, also, too):
        assert build.none("done")
        assert build.none("log")
    too.send(cancel=K)
    assert worker.take("revoke").lease == other.lease
    worker.done(shared)
    assert plain.take("done").outcome == also.take("done").outcome


def test_it_is_explained_by_its_key(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    plain, build = fleet.build("bob"), fleet.build()
    plain.execute(K)
    worker.done(worker.lease())
    plain.take("done")
    build.execute(K, anew=True)
    worker.done(worker.lease())
    build.take("done")
    for name in (K, K[:8]):
        told = fleet.fleet().Explain(pb.ExplainRequest(action=name), metadata=[("name", "ann")], timeout=SECONDS)
        assert (told.key, told.text) == (K, f"RUN {K[:4]}")
        assert [each.reason for each in told.decisions].count("DONE") == 2


def test_a_build_that_comes_back_gets_what_was_begun_for_it(patient: Scheduled) -> None:
    worker = patient.worker(slots=2).joined()
    build = patient.build(name="b1")
    build.execute(K, anew=True)
    lease = worker.lease()
    build.take("started")
    build.call.cancel()
    build = patient.build(name="b1")
    build.execute(K, anew=True)
    assert build.take("started").lease == lease.lease
    build.call.cancel()
    patient.wait_for(lambda: all(each.away_since is not None for each in patient.service.desk.builds.values()))
    worker.done(lease)
    worker.take("settled")
    build = patient.build(name="b1")
    build.execute(K, anew=True)
    assert build.take("done").worker == "w1"
    assert worker.none("lease")


def test_after_a_restart_it_begins_again_and_what_runs_still_is_nothing_but_a_result_of_its_key(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=2).joined()
    build = fleet.build(name="b1")
    build.execute(K, anew=True)
    lease = worker.lease()
    fleet.again()
    worker = fleet.worker(slots=2, incarnation=worker.incarnation, leases=[held(lease)]).joined()
    assert not worker.welcome.lost
    build, plain = fleet.build(name="b1"), fleet.build("bob")
    build.execute(K, anew=True)
    again = worker.lease()
    plain.execute(K)
    plain.take("started")
    worker.done(lease)
    assert worker.take("settled").taken
    shared = plain.take("done").outcome
    assert build.none("done")
    worker.done(again)
    assert build.take("done").outcome != shared
