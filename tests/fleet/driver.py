"""Driver: a scheduler and a clock, in few words for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.fleet.commands import Lease, Tell
from worker.fleet.events import (
    BuildClosed,
    BuildOpened,
    Finished,
    GaveBack,
    Held,
    Renewed,
    Tick,
    Unwanted,
    Wanted,
    WorkerDrains,
    WorkerJoined,
    WorkerLeft,
    WorkerResumes,
)
from worker.fleet.needs import Needs
from worker.fleet.scheduler import Scheduler

if TYPE_CHECKING:
    from worker.fleet.commands import Command
    from worker.fleet.decisions import Why

AMD = "linux/amd64"
MB = 1_000_000


class Driver:
    """Every method is one event at `now` and gives its commands."""

    def __init__(self, boot: str = "1") -> None:
        self.scheduler = Scheduler(boot)
        self.now = 1000.0

    def join(self, worker: str, slots: int = 1, memory: int = 1000, layers: tuple[str, ...] = (), **rest: Any) -> list[Command]:
        platforms = frozenset(rest.pop("platforms", (AMD,)))
        event = WorkerJoined(
            self.now, worker, worker, slots, memory, platforms, rest.pop("labels", {}), frozenset(layers),
            frozenset(rest.pop("caches", ())), tuple(Held(*each) for each in rest.pop("leases", ())),
            rest.pop("key", worker.encode()),
        )  # fmt: skip
        assert not rest
        return self.scheduler.handle(event)

    def left(self, worker: str) -> list[Command]:
        return self.scheduler.handle(WorkerLeft(self.now, worker))

    def drains(self, worker: str) -> list[Command]:
        return self.scheduler.handle(WorkerDrains(self.now, worker))

    def resumes(self, worker: str) -> list[Command]:
        return self.scheduler.handle(WorkerResumes(self.now, worker))

    def open(self, build: str, person: str = "ann") -> list[Command]:
        return self.scheduler.handle(BuildOpened(self.now, build, person))

    def close(self, build: str) -> list[Command]:
        return self.scheduler.handle(BuildClosed(self.now, build))

    def want(self, build: str, action: str, **needs: Any) -> list[Command]:
        needs.setdefault("platform", AMD)
        return self.scheduler.handle(Wanted(self.now, build, action, Needs(**needs)))

    def unwant(self, build: str, action: str) -> list[Command]:
        return self.scheduler.handle(Unwanted(self.now, build, action))

    def renew(self, worker: str, *leases: str) -> list[Command]:
        return self.scheduler.handle(Renewed(self.now, worker, leases))

    def finish(self, worker: str, lease: str, ok: bool = True, layers: tuple[str, ...] = ()) -> list[Command]:
        return self.scheduler.handle(Finished(self.now, worker, lease, ok, layers))

    def give_back(self, worker: str, lease: str, why: str = "no space left", *, leaving: bool = False) -> list[Command]:
        return self.scheduler.handle(GaveBack(self.now, worker, lease, why, leaving))

    def after(self, seconds: float, *alive: str) -> list[Command]:
        """Time passes, second by second; these workers renew what they hold."""
        commands: list[Command] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 1.0, end)
            for worker in alive:
                held = [each.lease for each in self.scheduler.snapshot().running if each.worker == worker]
                commands += self.renew(worker, *held)
            commands += self.scheduler.handle(Tick(self.now))
        return commands

    def whys(self, action: str) -> list[Why]:
        return [decision.why for decision in self.scheduler.explain(action)]

    def text(self, action: str) -> str:
        """The latest decision."""
        return self.scheduler.explain(action)[-1].text


def leases(commands: list[Command]) -> list[tuple[str, str]]:
    """(action, worker) of each that is given."""
    return [(each.action, each.worker) for each in commands if isinstance(each, Lease)]


def lease(commands: list[Command]) -> str:
    """The name of the only one that is given."""
    (name,) = [each.lease for each in commands if isinstance(each, Lease)]
    return name


def told(commands: list[Command]) -> list[tuple[str, str, str]]:
    """(build, state, worker) of each Tell."""
    return [(each.build, each.state, each.worker) for each in commands if isinstance(each, Tell)]


def with_two_builds() -> Driver:
    """One of ann's and one of ben's."""
    driver = Driver()
    driver.open("b1", "ann")
    driver.open("b2", "ben")
    return driver
