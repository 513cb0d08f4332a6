"""Pool: the actions of one kind that wait, and the workers that may take them; Pools: one for each kind in use."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from worker.fleet.decisions import Why
from worker.fleet.limits import MAX_KINDS, MAX_KINDS_PER_PERSON
from worker.fleet.ranked import Ranked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.fleet.fairness import Shares
    from worker.fleet.leases import OpenAction
    from worker.fleet.members import Member, Members
    from worker.fleet.needs import Kind


class Next(NamedTuple):
    """What should start next if it finds a worker. why: it and not another one."""

    action: str
    person: str
    build: str
    why: Why


class Pool:
    """fits: workers, as a set, that could take such actions, be they away, silent or leaving; able: those that take
    actions; open: that have room now. actions: how many of this kind are wanted or run. person: who came with the first
    of them, "" for nobody. nobody_since: when there was work and no able worker. waiting: lines by person and build."""

    def __init__(self, kind: Kind, members: Members, person: str) -> None:
        self.kind = kind
        self.person = person
        self.fits = self.able = self.open = 0
        self.actions = 0
        self.nobody_since: float | None = None
        self.waiting: dict[str, dict[str, Ranked]] = {}
        for member in members:
            self.refresh(member)

    def refresh(self, member: Member) -> None:
        """The member has changed."""
        bit = member.bit
        fits = member.fits(self.kind) and not member.drains
        able = fits and member.present and not (member.silent or member.leaves)
        self.fits = self.fits | bit if fits else self.fits & ~bit
        self.able = self.able | bit if able else self.able & ~bit
        self.open = self.open | bit if able and member.has_room(self.kind) else self.open & ~bit

    def vacate(self, member: Member) -> None:
        """The member is no more."""
        self.fits &= ~member.bit
        self.able &= ~member.bit
        self.open &= ~member.bit

    def put(self, action: OpenAction, build: str, person: str) -> None:
        """It waits for a build."""
        line = self.waiting.setdefault(person, {}).setdefault(build, Ranked())
        line.put(action.key, (-action.critical, action.place))

    def drop(self, action: OpenAction, build: str, person: str) -> None:
        """It does not wait for it any more; it may be missing."""
        builds = self.waiting.get(person)
        line = builds.get(build) if builds else None
        if builds is None or line is None:
            return
        line.drop(action.key)
        if not line:
            del builds[build]
            if not builds:
                del self.waiting[person]

    def next(self, now: float, shares: Shares) -> tuple[tuple[int, int, float, int], Next] | None:
        """The action to start next and its rank, lowest first: by use of the person, use of the build, path."""
        if not self.open or not self.waiting:
            return None
        levels = {person: shares.level(now, person_key(person)) for person in self.waiting}
        least = min(levels.values())
        best: tuple[tuple[int, int, float, int], Next] | None = None
        for person, level in levels.items():
            if level > least:
                continue
            for build, line in self.waiting[person].items():
                first = line.first()
                assert first is not None, "an empty line is not kept"
                rank = (level, shares.level(now, build_key(build)), *first[0])
                if best is None or rank < best[0]:
                    best = (rank, Next(first[1], person, build, self._why(person, line)))
        return best

    def _why(self, person: str, line: Ranked) -> Why:
        if len(self.waiting) > 1:
            return Why.FAIR_SHARE
        if len(self.waiting[person]) > 1:
            return Why.BUILD_SHARE
        return Why.LONGEST_PATH if len(line) > 1 else Why.ALONE


class Pools:
    """The kinds of all actions that are wanted or run."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._pools: dict[Kind, Pool] = {}
        self._brought: Counter[str] = Counter()
        """Kinds by the person who came with them."""

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def __len__(self) -> int:
        return len(self._pools)

    def __getitem__(self, kind: Kind) -> Pool:
        return self._pools[kind]

    def may_enter(self, kind: Kind, person: str) -> bool:
        """Whether the kind is there, or one more may be."""
        is_full = len(self._pools) >= MAX_KINDS or self._brought[person] >= MAX_KINDS_PER_PERSON
        return kind in self._pools or not is_full

    def enter(self, kind: Kind, person: str = "") -> None:
        """One more action is of this kind."""
        pool = self._pools.get(kind)
        if pool is None:
            pool = self._pools[kind] = Pool(kind, self._members, person)
            self._brought[person] += 1
        pool.actions += 1

    def leave(self, kind: Kind) -> None:
        """One less is; a kind that nobody has any more is forgotten."""
        pool = self._pools[kind]
        pool.actions -= 1
        if not pool.actions:
            del self._pools[kind]
            self._brought[pool.person] -= 1
            if not self._brought[pool.person]:
                del self._brought[pool.person]

    def refresh(self, member: Member) -> None:
        """A member has changed."""
        for pool in self._pools.values():
            pool.refresh(member)

    def vacate(self, member: Member) -> None:
        """A member is no more."""
        for pool in self._pools.values():
            pool.vacate(member)

    def next(self, now: float, shares: Shares) -> Next | None:
        """The action to start next, of those for which some worker has room. None: there is none."""
        found = [best for pool in self._pools.values() if (best := pool.next(now, shares)) is not None]
        return min(found)[1] if found else None


def person_key(person: str) -> str:
    """The name under which a person's use is counted."""
    return "person " + person


def build_key(build: str) -> str:
    """The name under which a build's use is counted."""
    return "build " + build
