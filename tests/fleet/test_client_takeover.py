"""What a build that lends slots of its own machine does with actions that the fleet does not begin."""

from __future__ import annotations

import queue
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from buildgraph.v1 import fleet_pb2 as pb

sys.path.insert(0, str(Path(__file__).parent))

from tap import Tap
from test_client_link import Line, Scheduler, link_to

from cache.result import Result
from compiler.fleet.here import Here
from compiler.fleet.placed_executor import PlacedExecutor, Wish
from compiler.fleet.trust import Trust
from worker.action import Action, Order
from worker.fleet.action_body import Body
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = "here: the fleet was busy"
SECONDS = 30.0


class Lent:
    """A build with a slot of its own, behind a wire to a scheduler that says what a test says."""

    def __init__(self, directory: Path) -> None:
        self.scheduler = Scheduler()
        self.wire = Tap(f"127.0.0.1:{self.scheduler.port}")
        self._link = link_to(int(self.wire.address.rpartition(":")[2]), lost_seconds=60)
        self._ended: queue.Queue[str] = queue.Queue()
        made = Result(None, None, 0.0, 0.0, "")
        executor: Any = SimpleNamespace(execute=lambda *_: made, stop=lambda: None, close=lambda: None)
        store = SimpleNamespace(scratch=lambda name: str(directory / name), directory=str(directory))
        settings = SimpleNamespace(write="main", origin="grpc://server")
        remote: Any = SimpleNamespace(settings=settings, store=store, tell=lambda *_: None)
        inputs: Any = SimpleNamespace(prepare=lambda action, *_: Body(action))
        here = Here(executor, jobs=1, local_slots=1)
        self._placed = PlacedExecutor(here, self._link, inputs, remote, Trust("main", frozenset()))
        self.stopped = threading.Event()
        opening = threading.Thread(target=self._link.open)
        opening.start()
        self.line = self.scheduler.line()
        self.line.open()
        opening.join(SECONDS)

    def want(self, key: str) -> None:
        action = Action(key, Run(("true",), (), "/", "", "default", "h"), ((),), "linux/amd64")
        order = Order({}, {}, {}, lambda _: None, self.stopped.is_set)
        threading.Thread(target=self._place, args=(action, order), daemon=True).start()

    def _place(self, action: Action, order: Order) -> None:
        try:
            self._ended.put(self._placed.place(action, order, Wish()).where)
        except Exception as error:  # noqa: BLE001, the test looks at it
            self._ended.put(repr(error))

    def end(self, seconds: float) -> str | None:
        """How the action ended; None if it did not in this time."""
        try:
            return self._ended.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        self.stopped.set()
        self.wire.close()
        self._placed.close()
        self.scheduler.stop()


@pytest.fixture
def lent(tmp_path: Path) -> Iterator[Lent]:
    made = Lent(tmp_path)
    yield made
    made.close()


def asked(line: Line) -> str:
    """The key of an action that is asked for next."""
    request = line.next()
    assert request is not None
    return request.execute.action.key


def test_what_waits_in_the_queue_is_taken_after_half_a_second(lent: Lent) -> None:
    lent.want("one")
    assert asked(lent.line) == "one"
    began = time.monotonic()
    lent.line.say(queued=pb.ActionQueued(key="one", reason="no slot is free"))
    assert lent.end(SECONDS) == HERE
    assert 0.4 < time.monotonic() - began < 15
    cancelled = lent.line.next()
    assert cancelled is not None
    assert cancelled.cancel == "one"


def test_what_a_silent_wire_swallows_is_taken_and_not_made_there_later(lent: Lent) -> None:
    lent.wire.passes.clear()
    began = time.monotonic()
    lent.want("one")
    assert lent.end(SECONDS) == HERE
    assert time.monotonic() - began < 15, "and not once the connection is given up"
    took = []
    for key in ("two", "three"):
        began = time.monotonic()
        lent.want(key)
        assert lent.end(SECONDS) == HERE
        took.append(time.monotonic() - began)
    assert min(took) < 2, "the next ones know it"
    lent.wire.passes.set()
    requests = [lent.line.next() for _ in range(6)]
    assert [each.cancel for each in requests if each is not None and each.cancel] == ["one", "two", "three"]


def test_what_a_broken_stream_did_not_take_is_taken_and_cancelled_on_the_next_one(lent: Lent) -> None:
    lent.want("one")
    assert asked(lent.line) == "one"
    lent.scheduler.refuse = grpc.StatusCode.UNAVAILABLE
    began = time.monotonic()
    lent.line.out.put(grpc.StatusCode.UNAVAILABLE)
    assert lent.end(SECONDS) == HERE
    assert time.monotonic() - began < 15
    lent.scheduler.refuse = None
    again = lent.scheduler.line()
    again.open()
    request = again.next()
    assert request is not None
    assert request.cancel == "one", "the scheduler may have had it"


@pytest.mark.slow
def test_what_a_worker_gets_ready_for_is_left_to_it(lent: Lent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.fleet.pulse.ANSWER_SECONDS", 10.0)  # a busy machine is not silent
    lent.want("one")
    assert asked(lent.line) == "one"
    assert lent.end(12) is None, "the scheduler answers, and does not say that it waits"


def test_what_a_worker_has_is_left_to_it_when_the_stream_breaks(lent: Lent) -> None:
    lent.want("one")
    assert asked(lent.line) == "one"
    lent.line.say(started=pb.ActionStarted(key="one", lease="l1", worker="w1"))
    lent.line.out.put(grpc.StatusCode.UNAVAILABLE)
    again = lent.scheduler.line()
    again.open()
    assert asked(again) == "one"
    again.say(queued=pb.ActionQueued(key="one", reason="no worker has joined"))  # a new scheduler, before its worker is back
    assert lent.end(3) is None
    again.say(started=pb.ActionStarted(key="one", lease="l1", worker="w1"))
    assert lent.end(1) is None
    again.say(queued=pb.ActionQueued(key="one", reason="the lease of w1 expired", again=True))
    assert lent.end(SECONDS) == HERE, "once the worker is known to have lost it"
