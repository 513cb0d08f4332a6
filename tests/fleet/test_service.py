"""The scheduler as builds and workers see it over gRPC: who gets what, and when it is over."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import grpc
import pytest
from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, held, key

from worker.fleet.limits import LEASE_SECONDS
from worker.fleet.protocol import VERSION

K = key(1)


def test_an_action_goes_to_a_worker_and_its_result_comes_back(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=2).joined()
    assert (worker.welcome.version, list(worker.welcome.lost)) == (VERSION, [])
    assert worker.welcome.lease_seconds > 2 * worker.welcome.renew_seconds
    build = fleet.build()
    opened = build.take("opened")
    assert (opened.workers, opened.slots, list(opened.platforms)) == (1, 2, ["linux/amd64"])
    build.execute(K, body=b"the body", retry=2, timeout=7.0, proxies={"http_proxy": "p"})
    lease = worker.lease()
    assert (lease.action.key, lease.action.body, lease.action.retry, lease.action.timeout) == (K, b"the body", 2, 7.0)
    assert (lease.instance_name, lease.text, dict(lease.action.proxies)) == ("", f"RUN {K[:4]}", {"http_proxy": "p"})
    begun = build.take("started")
    assert (begun.key, begun.lease, begun.worker, begun.seal_key) == (K, lease.lease, "w1", b"s" * 32)
    assert begun.worker_key == worker.identity.public
    assert begun.reason
    outcome = worker.outcome(lease)
    worker.done(lease, outcome)
    done = build.take("done")
    assert (done.key, done.worker, done.outcome) == (K, "w1", outcome)
    assert worker.take("settled").taken


def test_what_was_made_once_is_answered_at_once_with_its_signature(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    first = fleet.build()
    first.execute(K)
    lease = worker.lease()
    outcome = worker.outcome(lease)
    worker.done(lease, outcome)
    first.take("done")
    fleet.again()  # it is in the cache, not in the scheduler's memory
    second = fleet.build("bob")
    second.execute(K)
    done = second.take("done")
    assert (done.worker, done.outcome) == ("w1", outcome)


def test_equal_actions_run_once_and_both_builds_see_the_log_from_its_start(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=4).joined()
    first, second = fleet.build("ann"), fleet.build("bob")
    first.execute(K)
    lease = worker.lease()
    worker.log(lease.lease, b"one\n")
    assert first.log(K, 4) == b"one\n"
    second.execute(K)
    assert second.take("started").lease == lease.lease
    assert second.log(K, 4) == b"one\n"
    worker.log(lease.lease, b"two\n", 4)
    worker.done(lease)
    for build in (first, second):
        assert build.log(K, 4) == b"two\n"
        assert build.take("done").worker == "w1"
    assert worker.none("lease")


def test_a_whole_long_log_comes_to_whoever_joins_late_before_the_end(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    first, late = fleet.build(), fleet.build()
    first.execute(K)
    lease = worker.lease()
    lines = b"".join(b"line %07d of a step that says much\n" % number for number in range(60_000))
    for at in range(0, len(lines), 60_000):
        worker.log(lease.lease, lines[at : at + 60_000], at)
    assert first.log(K, len(lines)) == lines
    late.execute(K)
    late.take("started")
    worker.done(lease)
    assert late.log(K, len(lines)) == lines
    assert late.take("done").key == K


def test_what_one_build_cancels_goes_on_for_the_other(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=2).joined()
    first, second = fleet.build(), fleet.build()
    first.execute(K)
    lease = worker.lease()
    second.execute(K)
    second.take("started")
    first.send(cancel=K)
    assert worker.none("revoke")
    second.send(cancel=K)
    assert worker.take("revoke").lease == lease.lease
    worker.done(lease)
    settled = worker.take("settled")
    assert not settled.taken
    assert settled.reason
    assert (fleet.service.desk.actions, fleet.service.desk.leases, fleet.service.desk.bodies) == ({}, {}, 0)


def test_what_nobody_wants_any_more_is_cancelled_soon_after_its_client_died(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    lease = worker.lease()
    build.call.cancel()
    assert worker.take("revoke").lease == lease.lease


def test_a_build_that_asks_for_nothing_more_gets_what_it_asked_for_and_ends_well(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    build.requests.put(None)
    worker.done(worker.lease())
    assert build.take("done").key == K
    assert build.ended.wait(60)
    assert build.error is None
    assert not fleet.state().builds


def test_a_command_that_fails_is_a_result_and_is_not_kept_for_others(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    worker.fail(worker.lease(), log=str(worker.put(b"all of it")))
    failure = build.take("done").outcome.failure
    assert (failure.kind, failure.exit_status, list(failure.tail)) == ("command", 3, ["oh"])
    fleet.build().execute(K)
    assert worker.lease().action.key == K


def test_an_action_that_no_worker_can_make_is_declined_with_the_reason(fleet: Scheduled) -> None:
    fleet.worker().joined()
    fleet.clock.ahead += 20  # nobody else is waited for
    build = fleet.build()
    build.execute(K, platform="linux/s390x")
    declined = build.take("declined")
    assert declined.key == K
    assert "s390x" in declined.reason


def test_a_lease_that_is_not_renewed_expires_and_a_late_result_is_welcome(fleet: Scheduled) -> None:
    slow = fleet.worker("slow").joined()
    build = fleet.build()
    build.execute(K)
    lease = slow.lease()
    slow.log(lease.lease, b"from slow\n")
    build.log(K, 10)
    fleet.clock.ahead += 30
    queued = build.take("queued", again=True)
    assert "expired" in queued.reason
    slow.done(lease)
    assert build.take("done").worker == "slow"
    assert fleet.said("waits again")


def test_after_an_expiry_another_worker_makes_it_and_the_log_begins_anew(fleet: Scheduled) -> None:
    slow = fleet.worker("slow").joined()
    build = fleet.build()
    build.execute(K)
    first = slow.lease()
    slow.log(first.lease, b"from slow\n")
    assert build.log(K, 10) == b"from slow\n"
    other = fleet.worker("other").joined()
    fleet.clock.ahead += 30
    lease = other.lease()
    assert build.take("started", worker="other").lease == lease.lease
    slow.log(first.lease, b"still slow\n", 10)
    other.log(lease.lease, b"from other\n")
    assert build.log(K, 11) == b"from other\n"
    other.done(lease)
    assert build.take("done").worker == "other"
    slow.done(first)
    assert not slow.take("settled").taken


def test_leases_that_are_renewed_live_on(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    lease = worker.lease()
    build.take("started")
    leases = fleet.service.desk.scheduler._book.leases
    for _ in range(4):
        fleet.clock.ahead += 8
        worker.send(renewal=pb.WorkerMessage.Renewal(leases=[lease.lease]))
        fleet.wait_for(lambda: leases[lease.lease].expires > fleet.clock() + LEASE_SECONDS - 8)
    assert build.none("queued", again=True)
    worker.done(lease)
    assert build.take("done")


def test_a_late_action_gets_a_second_worker_and_the_first_result_is_the_one(fleet: Scheduled) -> None:
    slow = fleet.worker("slow").joined()
    build = fleet.build()
    build.execute(K, seconds=1.0)
    first = slow.lease()
    slow.log(first.lease, b"from slow\n")
    assert build.log(K, 10) == b"from slow\n"
    quick = fleet.worker("quick").joined()
    fleet.clock.ahead += 12
    slow.send(renewal=pb.WorkerMessage.Renewal(leases=[first.lease]))
    second = quick.lease()
    assert "late" in build.take("started", worker="quick").reason
    assert second.action == first.action
    quick.log(second.lease, b"from quick\n")
    slow.log(first.lease, b"slow again\n", 10)
    assert build.log(K, 11) == b"slow again\n"
    quick.done(second)
    assert build.take("done").worker == "quick"
    assert slow.take("revoke").lease == first.lease
    slow.done(first)
    assert not slow.take("settled").taken


def test_an_action_that_is_given_back_goes_to_another_worker(fleet: Scheduled) -> None:
    first = fleet.worker("w1").joined()
    build = fleet.build()
    build.execute(K)
    lease = first.lease()
    second = fleet.worker("w2").joined()
    first.send(given_back=pb.WorkerMessage.LeaseGivenBack(lease=lease.lease, reason="no space"))
    assert "no space" in build.take("queued", again=True).reason
    second.done(second.lease())
    assert build.take("done").worker == "w2"
    assert fleet.said("lease given back")[0]["text"] == "no space"


def test_a_worker_that_drains_finishes_and_takes_nothing_new(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=2).joined()
    build = fleet.build()
    build.execute(K)
    lease = worker.lease()
    worker.send(drain=pb.WorkerMessage.Drain())
    build.take("started")
    fleet.wait_for(lambda: fleet.state().workers[0].state == "draining")
    build.execute(key(2))
    build.take("queued", key=key(2))
    assert worker.none("lease")
    worker.done(lease)
    worker.take("settled")
    worker.requests.put(None)
    assert worker.ended.wait(60)
    assert worker.error is None
    assert not fleet.state().workers


def test_a_build_whose_stream_broke_comes_back_and_is_told_all_again(patient: Scheduled) -> None:
    worker = patient.worker(slots=2).joined()
    build = patient.build(name="b1")
    build.execute(K)
    build.execute(key(2))
    leases = {lease.action.key: lease for lease in (worker.lease(), worker.lease())}
    worker.log(leases[K].lease, b"hello\n")
    build.log(K, 6)
    build.call.cancel()
    worker.fail(leases[key(2)])
    worker.take("settled")
    again = patient.build(name="b1")
    again.execute(K)
    again.execute(key(2))
    assert again.take("started", key=K).lease == leases[K].lease
    assert again.log(K, 6) == b"hello\n"
    assert again.take("done", key=key(2)).outcome.failure.exit_status == 3
    worker.done(leases[K])
    assert again.take("done", key=K)
    assert worker.none("lease")


def test_secrets_that_were_sealed_while_the_worker_was_away_are_asked_for_again(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K, secrets=["token"])
    lease = worker.lease()
    started = build.take("started")
    worker.call.cancel()
    fleet.wait_for(lambda: fleet.state().workers[0].state == "lost")
    build.send(sealed={"lease": lease.lease, "channel": "secrets", "data": b"lost"})
    held = pb.WorkerMessage.HeldLease(lease=lease.lease, key=K, seconds=1.0, proof=lease.proof)
    worker = fleet.worker(incarnation=worker.incarnation, leases=[held]).joined()
    worker.begin(lease)
    assert build.take("started") == started
    build.send(sealed={"lease": lease.lease, "channel": "secrets", "data": b"again"})
    assert worker.take("sealed").data == b"again"
    worker.begin(lease)
    assert build.none("started"), "once by each stream"


def test_a_stream_that_breaks_after_its_last_request_is_waited_for(patient: Scheduled) -> None:
    """As one that is cancelled may look to the server, too: as if nothing more were asked."""
    worker = patient.worker().joined()
    build = patient.build(name="b1")
    build.execute(K)
    lease = worker.lease()
    build.requests.put(None)
    time.sleep(0.5)  # for that to be there before the stream breaks
    build.call.cancel()
    assert worker.none("revoke")
    again = patient.build(name="b1")
    again.execute(K)
    assert again.take("started", key=K).lease == lease.lease
    worker.done(lease)
    assert again.take("done", key=K)


def test_a_stream_that_opens_the_same_build_takes_the_place_of_the_first(fleet: Scheduled) -> None:
    first = fleet.build(name="b1")
    first.take("opened")
    fleet.build(name="b1").take("opened")
    assert first.failure()[0] is grpc.StatusCode.ABORTED
    other_person = fleet.build("bob", name="b1")
    other_person.take("opened")
    assert len(fleet.state().builds) == 2


def test_a_scheduler_that_restarts_hears_all_from_its_workers_and_builds(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=2).joined()
    build = fleet.build(name="b1")
    build.execute(K)
    lease = worker.lease()
    build.take("started")
    fleet.again()
    assert worker.failure()[0] is grpc.StatusCode.UNAVAILABLE
    assert build.failure()[0] is grpc.StatusCode.UNAVAILABLE
    worker = fleet.worker(slots=2, incarnation=worker.incarnation, leases=[held(lease)]).joined()
    assert not worker.welcome.lost
    worker.log(lease.lease, b"later\n", 100)
    build = fleet.build(name="b1")
    build.execute(K)
    assert build.take("started").worker == "w1"
    assert b"100 bytes of output left out" in build.take("log").data
    worker.begin(lease)
    assert build.take("started").seal_key == b"s" * 32
    assert worker.none("lease")
    worker.done(lease)
    assert build.take("done").worker == "w1"
    new = fleet.build()
    new.execute(key(2))
    assert worker.lease().lease != lease.lease


def test_leases_of_a_worker_that_lost_them_are_given_again(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    first = worker.lease()
    worker.call.cancel()
    again = fleet.worker().joined()
    second = again.lease()
    assert second.lease != first.lease
    assert build.take("queued", again=True).reason
    again.done(first)
    assert not again.take("settled").taken
    again.done(second)
    assert build.take("done")


def test_a_lease_that_is_said_to_be_held_and_is_not_is_lost(fleet: Scheduled) -> None:
    other = fleet.worker("other").joined()
    build = fleet.build()
    build.execute(K)
    lease = other.lease()
    thief = fleet.worker("thief", leases=[held(lease)]).joined()
    assert list(thief.welcome.lost) == [lease.lease]
    thief.done(lease)
    assert not thief.take("settled").taken
    other.done(lease)
    assert build.take("done").worker == "other"


@pytest.mark.slow
def test_thousands_of_actions_come_back_to_a_build_that_wants_them_at_once(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=100).joined()
    build = fleet.build()
    count = 1_000
    for number in range(count):
        build.execute(key(number), seconds=1.0)
    for _ in range(count):
        lease = worker.take("lease")
        worker.log(lease.lease, b"x\n")
        worker.fail(lease)
    assert {build.take("done").key for _ in range(count)} == {key(number) for number in range(count)}
    state = fleet.state()
    assert (state.queue_length, state.workers[0].failed) == (0, count)
    build.hang_up()
    desk = fleet.service.desk
    fleet.wait_for(lambda: not desk.builds)
    assert (desk.actions, desk.leases, desk.bodies) == ({}, {}, 0)
