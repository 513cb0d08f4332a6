"""What becomes of a step with secrets or an ssh agent if the build goes that serves it, and others want it still."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from driver import lease as lease_of
from driver import leases, told, with_two_builds
from scheduled import SECONDS, Scheduled, held, key

from worker.fleet.commands import Refuse, Revoke
from worker.fleet.decisions import Why
from worker.fleet.events import Unserved
from worker.fleet.parties import MAX_BROKEN

if TYPE_CHECKING:
    from scheduled import Build, Worker

K = key(1)
SSH = "ssh:default:1"


def shared(fleet: Scheduled, **order: Any) -> tuple[Worker, Build, Build, pb.SchedulerMessage.Lease]:
    """A worker with a lease that the first of two builds serves."""
    worker = fleet.worker().joined()
    first, second = fleet.build("ann"), fleet.build("bob")
    first.execute(K, **order)
    lease = worker.lease()
    first.take("started")
    second.execute(K, **order)
    second.take("started")
    return worker, first, second, lease


def give(build: Build, lease: pb.SchedulerMessage.Lease) -> None:
    """All of its secrets."""
    build.send(sealed=pb.Sealed(lease=lease.lease, channel="secrets", data=b"sealed"))
    build.send(sealed=pb.Sealed(lease=lease.lease, channel="secrets", end=True))


def goes_on(worker: Worker, build: Build, before: pb.SchedulerMessage.Lease) -> None:
    """The build gets a lease of its own, which it serves."""
    assert worker.take("revoke").lease == before.lease
    assert "secrets" in build.take("queued", again=True).reason
    again = worker.lease()
    assert again.lease != before.lease
    assert build.take("started", lease=again.lease).seal_key
    give(build, again)
    assert worker.take("sealed", lease=again.lease).data == b"sealed"
    worker.send(sealed=pb.Sealed(lease=again.lease, channel=SSH, data=b"ask"))
    assert build.take("sealed", lease=again.lease, channel=SSH).data == b"ask"
    worker.done(again)
    assert build.take("done").worker == "w1"


@pytest.mark.parametrize("how", ["cancel", "end"])
def test_a_step_with_an_agent_begins_again_with_that_of_a_build_that_is_left(fleet: Scheduled, how: str) -> None:
    worker, first, second, lease = shared(fleet, agents=["default"])
    give(first, lease)
    worker.take("sealed", end=True)
    if how == "cancel":
        first.send(cancel=K)
    else:
        first.call.cancel()
    goes_on(worker, second, lease)


def test_a_step_whose_secrets_have_not_all_come_begins_again(fleet: Scheduled) -> None:
    worker, first, second, lease = shared(fleet, secrets=["token"])
    first.send(sealed=pb.Sealed(lease=lease.lease, channel="secrets", data=b"half"))
    worker.take("sealed")
    first.send(cancel=K)
    goes_on(worker, second, lease)


@pytest.mark.parametrize("order", [{"secrets": ["token"]}, {"sealed_proxies": True}, {}], ids=["secrets", "proxies", "nothing"])
def test_a_step_that_needs_nothing_more_goes_on(fleet: Scheduled, order: dict[str, Any]) -> None:
    worker, first, second, lease = shared(fleet, **order)
    if order:
        give(first, lease)
        worker.take("sealed", end=True)
    first.send(cancel=K)
    assert worker.none("revoke")
    worker.done(lease)
    assert second.take("done").worker == "w1"


def test_what_goes_though_it_does_not_serve_changes_nothing(fleet: Scheduled) -> None:
    worker, first, second, lease = shared(fleet, agents=["default"])
    second.send(cancel=K)
    assert worker.none("revoke")
    worker.send(sealed=pb.Sealed(lease=lease.lease, channel=SSH, data=b"ask"))
    assert first.take("sealed").data == b"ask"


def without_its_build(patient: Scheduled) -> tuple[Worker, pb.SchedulerMessage.Lease]:
    """A worker with a lease whose build, which has an agent, is away."""
    worker, build = patient.worker().joined(), patient.build()
    build.execute(K, agents=["default"])
    lease = worker.lease()
    build.take("started")
    build.call.cancel()
    desk = patient.service.desk
    patient.wait_for(lambda: all(each.away_since is not None for each in desk.builds.values()))
    return worker, lease


def test_no_worker_waits_for_the_answer_of_a_build_that_is_not_there(patient: Scheduled) -> None:
    worker, lease = without_its_build(patient)
    desk = patient.service.desk
    worker.send(sealed=pb.Sealed(lease=lease.lease, channel=SSH, data=b"ask"))
    assert worker.take("sealed", channel=SSH).end
    with desk.lock:
        desk.leases[lease.lease].serving = None  # as after a restart of the server, before the build is back
    worker.send(sealed=pb.Sealed(lease=lease.lease, channel="ssh:default:2", data=b"ask"))
    assert worker.take("sealed", channel="ssh:default:2").end


def test_channels_that_broke_are_not_remembered_without_a_bound(patient: Scheduled) -> None:
    worker, lease = without_its_build(patient)
    desk = patient.service.desk
    for number in range(MAX_BROKEN + 50):
        worker.send(sealed=pb.Sealed(lease=lease.lease, channel=f"ssh:default:{number}", data=b"ask"))
    assert worker.take("sealed", SECONDS, channel=f"ssh:default:{MAX_BROKEN + 49}").end
    assert len(desk.leases[lease.lease].broken) == MAX_BROKEN


# the scheduler alone


def test_it_goes_to_the_same_worker_as_often_as_builds_go() -> None:
    fleet = with_two_builds()
    fleet.join("w1")
    name = lease_of(fleet.want("b1", "a"))
    fleet.want("b2", "a")
    for _ in range(5):  # more than an action may have leases without a result
        commands = fleet.scheduler.handle(Unserved(fleet.now, "w1", name))
        assert [each.lease for each in commands if isinstance(each, Revoke)] == [name]
        assert told(commands) == [("b1", "again", ""), ("b2", "again", ""), ("b1", "started", "w1"), ("b2", "started", "w1")]
        assert leases(commands) == [("a", "w1")]
        name = lease_of(commands)
    assert Why.UNSERVED in fleet.whys("a")


def test_a_second_lease_of_it_goes_on() -> None:
    fleet = with_two_builds()
    fleet.join("w1")
    first = lease_of(fleet.want("b1", "a", seconds=10.0))
    fleet.join("w2")
    second = lease_of(fleet.after(20, "w1", "w2"))
    assert told(fleet.scheduler.handle(Unserved(fleet.now, "w1", first))) == []
    assert fleet.finish("w2", second)[0].lease == second  # type: ignore[union-attr]


def test_a_lease_that_had_expired_is_over() -> None:
    fleet = with_two_builds()
    fleet.join("w1")
    name = lease_of(fleet.want("b1", "a"))
    fleet.after(30)
    fleet.scheduler.handle(Unserved(fleet.now, "w1", name))
    assert fleet.finish("w1", name)[0] == Refuse("w1", name, Why.NOT_HELD.sentence())
    fleet.scheduler.handle(Unserved(fleet.now, "nobody", name))


def test_secrets_that_went_by_a_stream_that_broke_are_not_taken_for_given(fleet: Scheduled) -> None:
    worker, first, second, lease = shared(fleet, secrets=["token"])
    give(first, lease)
    worker.take("sealed", end=True)
    worker.close()
    fleet.wait_for(lambda: fleet.service.desk.workers["w1"].left is not None)
    first.send(cancel=K)
    second.take("queued", again=True)
    back = fleet.worker(incarnation=worker.incarnation, leases=[held(lease)]).joined()
    again = back.lease()
    assert again.lease != lease.lease
    assert second.take("started", lease=again.lease).seal_key
    give(second, again)
    assert back.take("sealed", lease=again.lease).data == b"sealed"


def test_a_worker_hears_that_the_stream_of_the_build_broke(fleet: Scheduled) -> None:
    worker, build = fleet.worker().joined(), fleet.build("ann", name="one")
    build.execute(K, agents=["default"])
    lease = worker.lease()
    build.take("started")
    again = fleet.build("ann", name="one")
    assert worker.take("sealed", lease=lease.lease, channel="ssh:").end
    again.execute(K, agents=["default"])
    assert again.take("started").lease == lease.lease


def test_after_a_restart_nobody_is_asked_for_the_agent_of_another(fleet: Scheduled) -> None:
    worker, _first, _second, lease = shared(fleet, agents=["default"])
    fleet.again()
    back = fleet.worker(identity=worker.identity, incarnation=worker.incarnation, leases=[held(lease)]).joined()
    second = fleet.build("bob")
    second.execute(K, agents=["default"])
    assert second.take("started").lease == lease.lease
    first = fleet.build("ann")
    first.execute(K, agents=["default"])
    again = back.lease()
    assert again.lease != lease.lease, "it begins again, with the agent of a build that is known"
    for build in (first, second):
        build.take("queued", again=True)
        build.take("started", lease=again.lease)
