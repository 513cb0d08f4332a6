"""What workers and builds may say, and how much of it is kept."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import grpc
from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, key

from worker.fleet.desk import RECENT_BYTES
from worker.fleet.incoming import MAX_HELD, MAX_OUTCOME, Execute, checked_execute
from worker.fleet.service_limits import MAX_BODIES

K = key(1)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * 4_000
FOREIGN = b"\xa2\x06" + b"\x80\x89\x7a" + b"u" * 2_000_000
"""A field with the number 100, which nobody knows."""


def renewal(*leases: str) -> pb.WorkerMessage:
    return pb.WorkerMessage(renewal=pb.WorkerMessage.Renewal(leases=leases))


@pytest.mark.parametrize(
    "message",
    [
        renewal(*["a"] * (MAX_HELD + 1)), renewal(""), renewal(LONG),
        pb.WorkerMessage(held=pb.WorkerMessage.LayersHeld(added=[LONG])),
        pb.WorkerMessage(held=pb.WorkerMessage.LayersHeld(removed=[LONG])),
        pb.WorkerMessage(held=pb.WorkerMessage.LayersHeld(caches=[LONG])),
        pb.WorkerMessage(held=pb.WorkerMessage.LayersHeld(caches=map(str, range(10_001)))),
        pb.WorkerMessage(started=pb.WorkerMessage.LeaseStarted(lease=LONG)),
        pb.WorkerMessage(log=pb.WorkerMessage.LeaseLog(lease=LONG)),
        pb.WorkerMessage(log=pb.WorkerMessage.LeaseLog(lease="l", offset=-1)),
        pb.WorkerMessage(done=pb.WorkerMessage.LeaseDone(lease=LONG, key=K)),
        pb.WorkerMessage(done=pb.WorkerMessage.LeaseDone(lease="l", key=LONG)),
        pb.WorkerMessage(given_back=pb.WorkerMessage.LeaseGivenBack(lease=LONG)),
        pb.WorkerMessage(sealed=pb.Sealed(lease=LONG)),
        pb.WorkerMessage(mount=pb.WorkerMessage.MountPublished(instance_name=LONG)),
    ],
)  # fmt: skip
def test_a_worker_that_says_too_much_is_ended_and_nobody_else_notices(fleet: Scheduled, message: pb.WorkerMessage) -> None:
    liar, honest = fleet.worker("liar").joined(), fleet.worker("honest").joined()
    liar.requests.put(message)
    code, text = liar.failure()
    assert code is INVALID
    assert len(text) < 200, "what it said is not said back"
    build = fleet.build()
    build.execute(K)
    honest.done(honest.lease())
    assert build.take("done").worker == "honest"


def test_half_a_million_renewals_hold_nobody_up(fleet: Scheduled) -> None:
    liar = fleet.worker("liar").joined()
    liar.requests.put(renewal(*["a"] * 500_000))
    liar.failure()
    since = time.monotonic()
    fleet.state()
    assert time.monotonic() - since < 5.0


def test_an_outcome_beyond_all_measure_is_as_good_as_none(fleet: Scheduled) -> None:
    liar, build = fleet.worker("liar").joined(), fleet.build()
    build.execute(K)
    lease = liar.lease()
    honest = fleet.worker("honest").joined()
    tail = ["x" * 9_000] * (MAX_OUTCOME // 9_000 + 1)
    liar.done(lease, liar.outcome(lease, failure=pb.Failure(kind="command", exit_status=1, tail=tail)))
    assert not liar.take("settled").taken
    honest.done(honest.lease())
    assert build.take("done").worker == "honest"


def test_results_that_are_remembered_for_a_moment_have_a_bound_in_bytes(fleet: Scheduled) -> None:
    desk = fleet.service.desk
    outcome = pb.Outcome(failure=pb.Failure(message="x" * 1_000_000))
    with desk.lock:
        for number in range(200):
            desk.remember(f"{number % 100}", pb.ActionDone(key=K, outcome=outcome))
        kept = [done for number in range(200) if (done := desk.just_made(f"{number}")) is not None]
        assert len(kept) == RECENT_BYTES // 1_000_000 - (RECENT_BYTES % 1_000_000 < 30_000)
        assert desk.just_made("99") is not None


# what waits


def memory() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def received(order: pb.ActionOrder, needs: pb.Needs, around: bytes = b"", within: bytes = b"") -> Execute:
    """As it comes over the wire, with what a stranger adds to the message or to the order."""
    foreign = pb.ActionOrder.FromString(order.SerializeToString() + within)
    request = pb.BuildRequest(execute=pb.ExecuteAction(action=foreign, needs=needs))
    return checked_execute(pb.BuildRequest.FromString(request.SerializeToString() + around).execute)


@pytest.mark.parametrize("where", ["around", "within"])
def test_an_order_keeps_nothing_of_the_message_that_it_came_in(where: str) -> None:
    before, kept = memory(), []
    for number in range(40):
        kept.append(received(pb.ActionOrder(key=key(number), body=b"b"), pb.Needs(), **{where: FOREIGN}))
        gc.collect()
    assert memory() - before < 20_000_000, "of 80 MB that came"
    assert all(each.size < 300 and each.order.body == b"b" for each in kept)


def test_all_that_is_kept_of_an_action_counts() -> None:
    layers = [pb.LayerNeed(diff_id=f"sha256:{key(number)}", size=number) for number in range(2_000)]
    plain = received(pb.ActionOrder(key=K, body=b"b"), pb.Needs())
    with_layers = received(pb.ActionOrder(key=K, body=b"b"), pb.Needs(layers=layers))
    with_proxies = received(pb.ActionOrder(key=K, body=b"b", proxies={"http_proxy": "p" * 1_000}), pb.Needs())
    assert with_layers.size > plain.size + 2_000 * 200
    assert with_proxies.size > plain.size + 1_000


def test_a_build_that_waits_with_too_much_makes_the_rest_itself(fleet: Scheduled) -> None:
    build = fleet.build()
    build.execute(key(0))
    build.take("queued")
    desk = fleet.service.desk
    one = desk.bodies
    with desk.lock:
        desk.bodies = MAX_BODIES - 100_000
    layers = [pb.LayerNeed(diff_id=f"sha256:{key(number)}") for number in range(1_000)]
    build.execute(K, needs={"layers": layers})
    assert build.take("declined").reason == "too much waits already"
    build.execute(key(2))
    build.take("queued", key=key(2))
    with desk.lock:
        desk.bodies -= MAX_BODIES - 100_000 - one
    for number in (0, 2):
        build.send(cancel=key(number))
    fleet.wait_for(lambda: desk.bodies == 0)
