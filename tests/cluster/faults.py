"""What goes wrong in a cluster: each fault strikes while builds run, and what it broke is whole again afterwards."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from machines import Building, Machines


class Struck(NamedTuple):
    """Where a fault strikes. victim: a worker that runs something just now, if any does. builds: of clients c1, c2."""

    machines: Machines
    dice: random.Random
    victim: str
    builds: list[Building]
    lease: float


class Fault(Protocol):
    def __call__(self, at: Struck) -> Callable[[], None]:
        """Strike. What is returned mends what is still broken once the builds are over."""
        ...


class Kind(NamedTuple):
    """weight: how often. good: whether every build must end with the image all the same, else an error is allowed, too.
    victims: numbers of builds that may end in any way. seconds: that a build may take longer, beside a lease."""

    name: str
    strike: Fault
    weight: int
    good: bool = True
    victims: frozenset[int] = frozenset()
    seconds: float = 0.0


def _nothing() -> None:
    return


def kill_worker(at: Struck) -> Callable[[], None]:
    worker = at.machines.workers[at.victim]
    worker.kill()
    if at.dice.random() < 0.5:
        worker.start()
        return _nothing
    return worker.start


def stop_worker(at: Struck) -> Callable[[], None]:
    """It hangs for longer than a lease lives, or for good until it is killed."""
    worker = at.machines.workers[at.victim]
    worker.signal(signal.SIGSTOP)
    if at.dice.random() < 0.5:
        time.sleep(at.dice.uniform(0.5, 1.5) * at.lease)
        worker.signal(signal.SIGCONT)
        return _nothing

    def mend() -> None:
        worker.kill()
        worker.start()

    return mend


def interrupt_worker(at: Struck) -> Callable[[], None]:
    """It gives back what it has, or finishes it."""
    worker = at.machines.workers[at.victim]
    worker.signal(at.dice.choice((signal.SIGINT, signal.SIGTERM)))

    def mend() -> None:
        worker.process.wait(40)
        worker.start()

    return mend


def kill_server(at: Struck) -> Callable[[], None]:
    at.machines.server.kill()
    time.sleep(at.dice.choice((0.0, 1.0)))
    at.machines.server.start()
    return _nothing


def lose_server(at: Struck) -> Callable[[], None]:
    at.machines.server.kill()
    return at.machines.server.start


def stop_server(at: Struck) -> Callable[[], None]:
    at.machines.server.signal(signal.SIGSTOP)
    time.sleep(at.dice.uniform(0.5, 3.0))
    at.machines.server.signal(signal.SIGCONT)
    return _nothing


def kill_client(at: Struck) -> Callable[[], None]:
    at.builds[0].kill()
    return _nothing


def interrupt_client(at: Struck) -> Callable[[], None]:
    at.builds[0].process.send_signal(at.dice.choice((signal.SIGINT, signal.SIGTERM)))
    return _nothing


def cut(who: str, seconds: float) -> Fault:
    """who: worker, client or server, whose wire everything of it goes over. seconds: 0 for good."""

    def strike(at: Struck) -> Callable[[], None]:
        wires, machine = at.machines.wires, {"worker": at.victim, "client": "c1", "server": "server"}[who]
        wires.cut(machine)
        if not seconds:
            return lambda: wires.mend(machine)
        time.sleep(seconds)
        wires.mend(machine)
        return _nothing

    return strike


def kill_both(at: Struck) -> Callable[[], None]:
    """The server and a worker at once."""
    at.machines.workers[at.victim].kill()
    at.machines.server.kill()
    at.machines.server.start()
    at.machines.workers[at.victim].start()
    return _nothing


CUT_OFF = 48.0
"""Until a build leaves a server alone whose wire was cut without a word: 13 s until that is noticed by the keepalive of
its connection, and 30 s until the scheduler counts as lost, with a pause; 40 s and 60 s for users (hasty.py)."""
FIRST = frozenset((0,))
KINDS = (
    Kind("kill -9 of a worker", kill_worker, 10),
    Kind("kill -9 of the server", kill_server, 8),
    Kind("kill -9 of a client", kill_client, 6, victims=FIRST),
    Kind("kill -9 of the server and a worker", kill_both, 4),
    Kind("a worker hangs", stop_worker, 5),
    Kind("a worker is stopped", interrupt_worker, 4),
    Kind("a client is stopped", interrupt_client, 3, victims=FIRST),
    Kind("the server hangs", stop_server, 3),
    Kind("a worker is cut off for 1 s", cut("worker", 1), 4),
    Kind("a worker is cut off for 10 s", cut("worker", 10), 2, seconds=10),
    Kind("a worker is cut off for good", cut("worker", 0), 3, seconds=15),
    Kind("a client is cut off for 1 s", cut("client", 1), 3),
    Kind("a client is cut off for 10 s", cut("client", 10), 2, good=False, seconds=48),
    Kind("a client is cut off for good", cut("client", 0), 1, good=False, seconds=78),
    Kind("the server is cut off for 1 s", cut("server", 1), 3),
    Kind("the server is cut off for 10 s", cut("server", 10), 2, good=False, seconds=48),
    Kind("the server is cut off for good", cut("server", 0), 1, good=False, seconds=CUT_OFF),
    Kind("the server is gone for good", lose_server, 1, good=False, seconds=78),
)
