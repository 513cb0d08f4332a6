"""The scheduler under events in any order: what must hold after each, and that everything that is wanted ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

sys.path.insert(0, str(Path(__file__).parent))

from worker.fleet.commands import GiveUp, Lease, Refuse, Revoke, Settle, Tell
from worker.fleet.events import (
    BuildClosed,
    BuildOpened,
    Finished,
    GaveBack,
    Held,
    Renewed,
    Tick,
    Unserved,
    Unwanted,
    Wanted,
    WorkerDrains,
    WorkerJoined,
    WorkerLayers,
    WorkerLeft,
    WorkerResumes,
)
from worker.fleet.limits import LEASE_SECONDS, MAX_LEASES
from worker.fleet.needs import Needs
from worker.fleet.scheduler import Scheduler

if TYPE_CHECKING:
    from worker.fleet.commands import Command
    from worker.fleet.events import Event

WORKERS = {
    "w0": (1, 100, frozenset({"amd"}), {}),
    "w1": (2, 100, frozenset({"amd", "arm"}), {"gpu": "yes"}),
    "w2": (3, 50, frozenset({"arm"}), {}),
    "w3": (1, 0, frozenset({"amd"}), {"gpu": "yes", "zone": "a"}),
}
"""slots, memory, platforms, labels."""
BUILDS = {"b0": "ann", "b1": "ann", "b2": "ben"}
ACTIONS = [f"a{number}" for number in range(8)]
LAYERS = ["x", "y", "z"]

workers, builds, actions = (st.sampled_from(sorted(names)) for names in (WORKERS, BUILDS, ACTIONS))
layers = st.frozensets(st.sampled_from(LAYERS))
needs = st.builds(
    Needs,
    platform=st.sampled_from(["amd", "amd", "arm", "arm", "", "", "mips"]),
    memory=st.sampled_from([0, 0, 30, 60]),
    layers=st.frozensets(st.sampled_from(LAYERS)).map(
        lambda names: tuple((name, 400_000_000 * (LAYERS.index(name) + 1)) for name in sorted(names))
    ),
    caches=st.sampled_from([(), (), ("apt",)]),
    seconds=st.sampled_from([None, 0.0, 1.0, 30.0]),
    critical=st.sampled_from([0.0, 1.0, 100.0]),
    labels=st.sampled_from([{}, {}, {}, {}, {"gpu": "yes"}, {"zone": "b"}]),
    workers=st.sampled_from([frozenset()] * 4 + [frozenset({b"w0", b"w1"}), frozenset({b"w3"}), frozenset({b"gone"})]),
)


class Fleet(RuleBasedStateMachine):
    """The model knows what each worker was given and each build wants; a twin scheduler gets the same events."""

    def __init__(self) -> None:
        super().__init__()
        self.boot = 1
        self.scheduler, self.twin = Scheduler("1"), Scheduler("1")
        self.now = 0.0
        self.present: set[str] = set()
        self.draining: set[str] = set()
        self.opened: set[str] = set()
        self.wanted: dict[str, dict[str, None]] = {}
        self.needs: dict[str, Needs] = {}
        self.given: dict[str, tuple[str, str]] = {}
        """Leases that workers work on: (worker, action)."""
        self.counted: set[str] = set()
        """Those of them that the scheduler still counts on: neither expired nor left."""
        self.ended: set[str] = set()
        """Revoked or settled: never to be taken again."""
        self.renewed: dict[str, float] = {}
        self.tried: set[tuple[str, str]] = set()

    def say(self, event: Event) -> list[Command]:
        commands = self.scheduler.handle(event)
        assert commands == self.twin.handle(event), "equal events give equal commands"
        for command in commands:
            self.check(command)
        return commands

    def check(self, command: Command) -> None:
        match command:
            case Lease(worker, lease, action, until):
                slots, memory, platforms, labels = WORKERS[worker]
                asked = self.needs[action]
                assert worker in self.present - self.draining, "a lease for one that takes nothing"
                assert asked.platform in ("", *platforms)
                assert asked.labels.items() <= labels.items()
                assert not asked.workers or worker.encode() in asked.workers, "its build trusts others"
                assert (worker, action) not in self.tried, "it gave that back"
                self.given[lease] = (worker, action)
                self.counted.add(lease)
                self.renewed[lease] = self.now
                running = [self.given[name][1] for name in self.counted if self.given[name][0] == worker]
                assert len(running) <= slots
                assert sum(self.needs[name].memory for name in running if name in self.needs) <= memory
                assert until == self.now + LEASE_SECONDS
                assert any(action in each for each in self.wanted.values()), "nobody wants it"
            case Revoke(worker, lease, why):
                assert worker in self.present, "a command for one that left"
                self.end(lease)
                assert why
            case Refuse(worker, lease, why):
                assert worker in self.present
                assert why
            case Settle(action, lease, worker, told):
                assert lease not in self.ended, "a lease that was over"
                self.end(lease)
                assert set(told) == {name for name, each in self.wanted.items() if action in each}
                self.over(action)
            case GiveUp(told, action, why):
                assert why
                if action in self.wanted.get(told[0], {}):
                    assert not [name for name in self.counted if self.given[name][1] == action], "it runs"
                    assert set(told) == {name for name, each in self.wanted.items() if action in each}
                    self.over(action)
            case Tell(build, action, _, _, reason):
                assert action in self.wanted[build]
                assert reason

    def end(self, lease: str) -> None:
        self.given.pop(lease, None)
        self.counted.discard(lease)
        self.ended.add(lease)

    def over(self, action: str) -> None:
        """Nobody waits for it any more."""
        for each in self.wanted.values():
            each.pop(action, None)
        self.needs.pop(action, None)
        self.tried = {(worker, name) for worker, name in self.tried if name != action}
        for lease in [name for name in self.given if self.given[name][1] == action and name not in self.counted]:
            self.ended.add(lease)

    def lapse(self) -> None:
        """What was not renewed in time does not count any more."""
        self.counted = {name for name in self.counted if self.renewed[name] + LEASE_SECONDS > self.now}

    def held_by(self, worker: str) -> list[str]:
        return [name for name, (owner, _) in self.given.items() if owner == worker]

    @rule(worker=workers, has=layers, keeps=st.booleans(), drains=st.sampled_from([False, False, True]))
    def join(self, worker: str, has: frozenset[str], keeps: bool, drains: bool = False) -> None:
        slots, memory, platforms, labels = WORKERS[worker]
        names = self.held_by(worker) if keeps else []
        self.present.add(worker)
        (self.draining.add if drains else self.draining.discard)(worker)
        for name in set(self.held_by(worker)) - set(names):
            self.end(name)
        for name in names:
            if name not in self.ended:
                self.renewed[name] = self.now
                self.counted.add(name)
        held = tuple(Held(name, self.given[name][1], 1.0) for name in names)
        offered = (worker, slots, memory, platforms, labels, has, frozenset[str](), held, worker.encode(), drains)
        self.say(WorkerJoined(self.now, worker, *offered))

    @rule(worker=workers)
    def leave(self, worker: str) -> None:
        self.present.discard(worker)
        self.say(WorkerLeft(self.now, worker))

    @rule(worker=workers, on=st.booleans())
    def cordon(self, worker: str, on: bool) -> None:
        if worker in self.present:
            (self.draining.add if on else self.draining.discard)(worker)
            self.say(WorkerDrains(self.now, worker) if on else WorkerResumes(self.now, worker))

    @rule(worker=workers, added=layers, removed=layers)
    def hold(self, worker: str, added: frozenset[str], removed: frozenset[str]) -> None:
        self.say(WorkerLayers(self.now, worker, added - removed, removed, frozenset({"apt"} if added else ())))

    @rule(build=builds)
    def open(self, build: str) -> None:
        self.opened.add(build)
        self.wanted.setdefault(build, {})
        self.say(BuildOpened(self.now, build, BUILDS[build]))

    @rule(build=builds, again=st.booleans())
    def close(self, build: str, again: bool) -> None:
        self.opened.discard(build)
        for action in tuple(self.wanted.pop(build, {})):
            self.let_go(action)
        self.say(BuildClosed(self.now, build))
        if again:
            self.open(build)

    @initialize(names=st.lists(workers, unique=True, min_size=2), time=st.sampled_from([0.0, 0.0, 20.0]))
    def begin(self, names: list[str], time: float) -> None:
        for build in BUILDS:
            self.open(build)
        for worker in names:
            self.join(worker, frozenset(), False)
        self.tick(time)

    @rule(asked=st.lists(st.tuples(builds, actions, needs), min_size=1, max_size=6))
    def want(self, asked: list[tuple[str, str, Needs]]) -> None:
        for each in asked:
            self.want_one(*each)

    def want_one(self, build: str, action: str, asked: Needs) -> None:
        if build in self.opened:
            if not any(action in each for each in self.wanted.values()):
                self.needs[action] = asked
            self.wanted[build][action] = None
        self.say(Wanted(self.now, build, action, asked))

    @rule(build=builds, action=actions)
    def unwant(self, build: str, action: str) -> None:
        if self.wanted.get(build, {}).pop(action, "no") is None:
            self.let_go(action)
        self.say(Unwanted(self.now, build, action))

    def let_go(self, action: str) -> None:
        """Perhaps nobody wants it any more: then its leases end, also those whose workers cannot be told."""
        if not any(action in each for each in self.wanted.values()):
            self.over(action)
            for lease in [name for name in self.counted if self.given[name][1] == action]:
                self.counted.discard(lease)
                self.ended.add(lease)

    @rule(data=st.data(), ok=st.booleans())
    def finish(self, data: st.DataObject, ok: bool) -> None:
        if not self.given:
            return
        lease = data.draw(st.sampled_from(sorted(self.given)))
        worker, action = self.given[lease]
        if worker not in self.present:
            return
        over = lease in self.ended
        commands = self.say(Finished(self.now, worker, lease, ok, ("z",)))
        taken = [each for each in commands if isinstance(each, Settle)]
        refused = [each for each in commands if isinstance(each, Refuse)]
        self.given.pop(lease, None)
        self.counted.discard(lease)
        assert bool(taken) != bool(refused), "a result is taken or refused"
        assert not (over and taken), f"the result of {lease}, which was over, is taken for {action}"

    @rule(worker=workers, data=st.data())
    def steal(self, worker: str, data: st.DataObject) -> None:
        """A result for somebody else's lease."""
        foreign = sorted(name for name, (owner, _) in self.given.items() if owner != worker)
        if foreign and worker in self.present:
            commands = self.say(Finished(self.now, worker, data.draw(st.sampled_from(foreign)), True))
            assert any(isinstance(each, Refuse) for each in commands)
            assert not any(isinstance(each, Settle) for each in commands)

    @rule(data=st.data(), leaving=st.booleans())
    def give_back(self, data: st.DataObject, leaving: bool) -> None:
        if self.counted:
            lease = data.draw(st.sampled_from(sorted(self.counted)))
            worker, action = self.given[lease]
            if worker in self.present:
                self.given.pop(lease)
                self.counted.discard(lease)
                self.ended.add(lease)
                if leaving:
                    self.draining.add(worker)
                else:
                    self.tried.add((worker, action))
                self.say(GaveBack(self.now, worker, lease, "full", leaving))

    @rule(data=st.data())
    def unserve(self, data: st.DataObject) -> None:
        """Its worker may be away, and hears of it when it comes back."""
        if self.given:
            lease = data.draw(st.sampled_from(sorted(self.given)))
            worker, _ = self.given[lease]
            self.counted.discard(lease)
            self.ended.add(lease)
            self.say(Unserved(self.now, worker, lease))

    @rule(worker=workers)
    def renew(self, worker: str) -> None:
        if worker in self.present:
            names = self.held_by(worker)
            for name in names:
                if name not in self.ended:
                    self.renewed[name] = self.now
                    self.counted.add(name)
            self.say(Renewed(self.now, worker, tuple(names)))

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 4.0, 11.0, 25.0, 70.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.lapse()
        self.say(Tick(self.now))

    @invariant()
    def never_more_than_two(self) -> None:
        view = self.scheduler.snapshot()
        running: dict[str, int] = {}
        busy: dict[str, int] = {}
        for each in view.running:
            running[each.action] = running.get(each.action, 0) + 1
            busy[each.worker] = busy.get(each.worker, 0) + 1
        assert all(count <= MAX_LEASES for count in running.values())
        assert all(count <= WORKERS[worker][0] for worker, count in busy.items())
        assert all(each.used_memory <= each.memory for each in view.workers)

    @invariant()
    def nothing_is_kept_of_what_is_over(self) -> None:
        book = self.scheduler._book
        wanted = {action for each in self.wanted.values() for action in each}
        assert set(book.actions) == wanted
        assert set(book.builds) == self.opened
        assert len(book.pools) <= len(wanted)
        assert set(book.expired) <= set(self.given)
        assert set(book.chances) <= wanted
        assert len(book.expiries) == len(book.leases) >= len(book.lates)
        assert len(book.patience) == sum(len(member.awaited) for member in book.members)
        assert all(action.is_queued or action.leases for action in book.actions.values())

    def teardown(self) -> None:
        """From here on one worker does all that it is given: what is wanted ends."""
        self.join("w1", frozenset(), False)
        for _ in range(200):
            if not any(self.wanted.values()):
                break
            self.now += 1.0
            self.lapse()
            self.say(Tick(self.now))
            for lease in self.held_by("w1"):
                self.say(Finished(self.now, "w1", lease, True))
                self.given.pop(lease, None)
                self.counted.discard(lease)
            self.renew("w1")
        assert not any(self.wanted.values()), f"still wanted after all that time: {self.wanted}"
        assert not self.scheduler._book.actions


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
