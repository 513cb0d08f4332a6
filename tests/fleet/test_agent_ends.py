"""An agent that is told to end while a lease is begun, or while one does not come to its end."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from buildgraph.v1 import fleet_pb2 as pb

sys.path.insert(0, str(Path(__file__).parent))

from cluster import until

from worker.action import Action, Cancelled
from worker.fleet.action_body import Body, encode_body
from worker.fleet.agent import STOP_SECONDS, Agent
from worker.fleet.agent_outgoing import Outgoing
from worker.fleet.agent_stream import Welcome
from worker.operation import Run

SECONDS = 60.0


class Given:
    """What an agent is made of, as far as leases need it that never get a slot."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begins = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def say(self, line: str) -> None:
        """A terminal that may be slow."""
        self.said.append(line)
        if line.startswith("begins "):
            self.begins.set()
            self.goes_on.wait(SECONDS)

    def agent(self, slots: int = 1, **tools: object) -> Agent:
        anything: Any = _Anything(hot=_Anything(tidy=lambda: 0), **tools)
        offer: Any = _Anything(slots=slots, caches=(), memory=1 << 30, name="w1")
        return Agent(offer, anything, anything, self.say)


class _Anything:
    """Has every attribute, and each of them can be called; for what is not looked at."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __call__(self, *_: object, **__: object) -> Any:
        return _Anything()


def order(name: str = "l1") -> pb.SchedulerMessage.Lease:
    run = Run(("true",), (), "/", "", "default", "h", ())
    body = encode_body(Body(Action("ab" * 32, run, ((),), "linux/amd64")))
    return pb.SchedulerMessage.Lease(lease=name, action=pb.ActionOrder(key="ab" * 32, body=body), text="RUN make")


def ended() -> threading.Thread:
    """A connection that is over."""
    made = threading.Thread(target=lambda: None)
    made.start()
    return made


def messages(outgoing: Outgoing) -> list[pb.WorkerMessage]:
    outgoing.finish()
    return list(outgoing)


def test_a_signal_while_it_says_what_it_begins_gives_that_back() -> None:
    given = Given()
    given.goes_on.clear()
    agent, outgoing = given.agent(slots=0), Outgoing()
    agent.welcomed(Welcome(4.0, (), shares_mounts=False), outgoing)
    leasing = threading.Thread(target=agent.leased, args=(order(),))
    leasing.start()
    assert given.begins.wait(SECONDS)
    agent._stop(ended(), "the worker was stopped", leaving=True)
    given.goes_on.set()
    leasing.join(SECONDS)
    backs = [each.given_back for each in messages(outgoing) if each.HasField("given_back")]
    assert [each.lease for each in backs] == ["l1"]


def test_a_machine_that_has_no_thread_left_gives_the_lease_back_and_goes_on() -> None:
    given = Given()
    agent, outgoing = given.agent(slots=0), Outgoing()
    agent.welcomed(Welcome(4.0, (), shares_mounts=False), outgoing)
    before = threading.stack_size()
    threading.stack_size(1 << 46)  # more than there is: no thread can be started
    try:
        agent.leased(order())
    finally:
        threading.stack_size(before)
    assert not given.begins.is_set()
    agent.leased(order())
    assert given.begins.is_set(), "it may come again"
    back = next(each.given_back for each in messages(outgoing) if each.HasField("given_back"))
    agent._stop(ended(), "the test is over")
    assert (back.lease, back.reason, back.leaving) == ("l1", "it cannot start a thread: can't start new thread", False)


@pytest.mark.slow
def test_what_does_not_end_in_time_is_given_back_all_the_same() -> None:
    given, hangs = Given(), threading.Event()

    def prepare(*_: object) -> None:
        hangs.wait(60)
        raise Cancelled

    agent, outgoing = given.agent(inputs=_Anything(prepare=prepare)), Outgoing()
    agent.welcomed(Welcome(4.0, (), shares_mounts=False), outgoing)
    agent.leased(order())
    assert given.begins.wait(SECONDS)
    began = time.monotonic()
    agent._stop(ended(), "the worker was stopped", leaving=True)
    assert time.monotonic() - began < STOP_SECONDS + 20
    [back] = [each.given_back for each in messages(outgoing) if each.HasField("given_back")]
    assert (back.lease, back.reason, back.leaving) == ("l1", "the worker was stopped", True)
    hangs.set()
    until(lambda: all(each.name != "lease" for each in threading.enumerate()))
