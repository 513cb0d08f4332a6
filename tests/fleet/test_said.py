"""What workers may say, and how much of it is kept."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import grpc
from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, key

from worker.fleet.desk import RECENT_BYTES
from worker.fleet.incoming import MAX_HELD, MAX_OUTCOME

K = key(1)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * 4_000


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
    assert time.monotonic() - since < 1.0


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
