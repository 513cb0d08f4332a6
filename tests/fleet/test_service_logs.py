"""Which log builds see of an action that two workers execute, when one of them stops."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, key

from worker.fleet.limits import LEASE_SECONDS

if TYPE_CHECKING:
    from scheduled import Worker

K = key(1)


class Two:
    """An action on `slow`, whose log is shown, and on `quick`."""

    def __init__(self, fleet: Scheduled) -> None:
        self.fleet = fleet
        self.slow, self.build = fleet.worker("slow").joined(), fleet.build()
        self.build.execute(K, seconds=1.0)
        self.first = self.slow.lease()
        self.slow.log(self.first.lease, b"one\ntwo\n")
        assert self.build.log(K, 8) == b"one\ntwo\n"
        self.quick = fleet.worker("quick").joined()
        self.pass_time(12, self.slow, self.first.lease)
        self.second = self.quick.lease()
        assert self.build.take("started", worker="quick").lease == self.second.lease
        self.quick.log(self.second.lease, b"one\n")

    def pass_time(self, seconds: float, worker: Worker, lease: str) -> None:
        """With a worker that renews at the end of it."""
        clock, leases = self.fleet.clock, self.fleet.service.desk.scheduler._book.leases
        clock.ahead += seconds
        worker.send(renewal=pb.WorkerMessage.Renewal(leases=[lease]))
        self.fleet.wait_for(lambda: leases[lease].expires > clock() + LEASE_SECONDS - seconds)

    def end(self, how: str) -> None:
        """The first lease ends without a result."""
        if how == "gives back":
            self.slow.send(given_back=pb.WorkerMessage.LeaseGivenBack(lease=self.first.lease, reason="its disk is full"))
        elif how == "comes back without it":
            self.slow.close()
            self.slow = self.fleet.worker("slow").joined()
        else:
            for _ in range(2):
                self.pass_time(12, self.quick, self.second.lease)
            book = self.fleet.service.desk.scheduler._book
            self.fleet.wait_for(lambda: self.first.lease not in book.leases)


@pytest.fixture
def two(fleet: Scheduled) -> Two:
    return Two(fleet)


@pytest.mark.parametrize("how", ["gives back", "comes back without it", "expires"])
def test_when_the_shown_lease_ends_the_log_of_the_other_one_takes_its_place(two: Two, how: str) -> None:
    two.end(how)
    two.quick.log(two.second.lease, b"two\nthree\n", 4)
    pieces = [two.build.take("log", key=K)]
    while not pieces[-1].data.endswith(b"three\n"):
        pieces.append(two.build.take("log", key=K))
    assert b"".join(piece.data for piece in pieces) == b"one\ntwo\nthree\n", "from its start, and nothing of the other"
    assert {piece.lease for piece in pieces} == {two.second.lease}, "by which it is told from the other"
    late = two.fleet.build("bob")
    late.execute(K)
    assert late.take("started").worker == "quick"
    assert late.log(K, 14) == b"one\ntwo\nthree\n"
    two.quick.done(two.second)
    assert two.build.take("done").worker == late.take("done").worker == "quick"


def test_a_log_that_begins_anew_says_so_before_it_has_a_line(fleet: Scheduled) -> None:
    slow, build = fleet.worker("slow").joined(), fleet.build()
    build.execute(K, seconds=1.0)
    first = slow.lease()
    slow.log(first.lease, b"old\n")
    build.log(K, 4)
    quick = fleet.worker("quick").joined()
    fleet.clock.ahead += 12
    slow.send(renewal=pb.WorkerMessage.Renewal(leases=[first.lease]))
    second = quick.lease()
    slow.send(given_back=pb.WorkerMessage.LeaseGivenBack(lease=first.lease, reason="its disk is full"))
    piece = build.take("log", key=K)
    assert (piece.lease, piece.data) == (second.lease, b"")
    quick.done(second)
    assert build.take("done").worker == "quick"


def test_when_the_other_lease_ends_the_shown_log_goes_on(two: Two) -> None:
    two.quick.send(given_back=pb.WorkerMessage.LeaseGivenBack(lease=two.second.lease, reason="its disk is full"))
    two.slow.log(two.first.lease, b"three\n", 8)
    piece = two.build.take("log", key=K)
    assert (piece.lease, piece.data) == (two.first.lease, b"three\n")
