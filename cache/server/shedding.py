"""Shedding: which results and blobs of a server go when there is too much. Pure: holdings in, choices out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.eviction import Candidate, choose, value
from cache.size_text import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.server.holdings import Holdings

SLACK = 0.9
"""What is cleaned up is cleaned up to this part of its limit, so that the next time is not at once."""
GRACE = (3600.0, 60.0)
"""Seconds: what was used since then is spared, at first; if the rest is too little, only what is really new. A build
uploads blobs some time before the result that names them."""
LEAST_SECONDS, MAX_SECONDS = 1.0, 6 * 3600.0
"""What an execution counts at least and at most: its client says how long it took, and may say anything."""
TRANSFER = 10e6
"""Bytes a second: a blob that no result names is worth the time to upload it again, no more."""


class Shed(NamedTuple):
    """What goes. actions: keys of records. blobs: (namespace, digest) that belong there no longer. rules: why, in
    words. short: bytes that limits still ask for, of what is too new."""

    actions: frozenset[str] = frozenset()
    blobs: frozenset[tuple[str, str]] = frozenset()
    rules: tuple[str, ...] = ()
    short: int = 0


class Demands(NamedTuple):
    """need: bytes that the whole store must give back. limit_of: bytes that a namespace may have. unused_since:
    seconds since the epoch; what was last used before goes in any case."""

    need: int
    limit_of: Callable[[str], int | None]
    unused_since: float | None = None


def plan_shedding(holdings: Holdings, demands: Demands, now: float) -> Shed:
    """Broken results always go; of the rest what is worth least for each byte, first in each namespace that is over
    its own limit, then anywhere."""
    shedding = _Shedding(holdings, now)
    shedding.drop(number for number, action in enumerate(holdings.actions) if action.broken)
    rules = []
    if demands.unused_since is not None and shedding.drop_older(demands.unused_since):
        rules.append("unused for long")
    short = 0
    for namespace, used in sorted(holdings.bytes.items()):
        limit = demands.limit_of(namespace)
        if limit is not None and used > limit:
            rules.append(f"{namespace or '(default)'} may have {bytes_text(limit)}")
            need = used - int(limit * SLACK) - shedding.freed_in(namespace)
            short += max(0, shedding.make_room(need, namespace) - int(limit * (1 - SLACK)))
    if demands.need > shedding.freed_anywhere():
        rules.append("the store may have no more")
        short += shedding.make_room(demands.need - shedding.freed_anywhere(), None)
    actions = frozenset(holdings.actions[number].key for number in shedding.gone)
    blobs = frozenset((namespace, holdings.digests[blob]) for namespace, blob in shedding.given_up)
    return Shed(actions, blobs, tuple(rules), short)


class _Shedding:
    def __init__(self, holdings: Holdings, now: float) -> None:
        self._holdings = holdings
        self._now = now
        self._named = dict(holdings.named)
        self._holders: dict[int, int] = {}
        """Number of a blob → namespaces that have it."""
        for _, blob in self._named:
            self._holders[blob] = self._holders.get(blob, 0) + 1
        for each in holdings.loose:
            self._holders[each.blob] = self._holders.get(each.blob, 0) + 1
        self.gone: set[int] = set()
        self.given_up: set[tuple[str, int]] = set()
        self._freed: dict[str, int] = {}
        self._freed_anywhere = 0

    def freed_in(self, namespace: str) -> int:
        return self._freed.get(namespace, 0)

    def freed_anywhere(self) -> int:
        return self._freed_anywhere

    def drop(self, actions: Iterable[int]) -> None:
        for number in actions:
            action = self._holdings.actions[number]
            self.gone.add(number)
            self._freed_anywhere += action.own
            for blob in action.blobs:
                place = action.namespace, blob
                self._named[place] -= 1
                if not self._named[place]:
                    del self._named[place]
                    self._give_up(place)

    def _give_up(self, place: tuple[str, int]) -> None:
        namespace, blob = place
        if place in self.given_up:
            return
        self.given_up.add(place)
        size = self._holdings.sizes[blob]
        self._freed[namespace] = self._freed.get(namespace, 0) + size
        self._holders[blob] -= 1
        if not self._holders[blob]:
            self._freed_anywhere += size

    def drop_older(self, since: float) -> bool:
        """Whether there was any."""
        before = len(self.gone) + len(self.given_up)
        actions = self._holdings.actions
        self.drop([n for n, action in enumerate(actions) if n not in self.gone and action.last < since])
        for each in self._holdings.loose:
            if each.last < since:
                self._give_up((each.namespace, each.blob))
        return len(self.gone) + len(self.given_up) > before

    def make_room(self, need: int, namespace: str | None) -> int:
        """Drop what is worth least until so many bytes come back, in one namespace or from the store; the bytes that
        are still wanted after that."""
        for grace in GRACE:
            if need > 0:
                need -= self._make_some(need, namespace, self._now - grace)
        return max(0, need)

    def _make_some(self, need: int, namespace: str | None, before: float) -> int:
        freed = self._freed_anywhere if namespace is None else self.freed_in(namespace)
        candidates, owners = self._candidates(namespace, before)
        holders, sizes = self._held(namespace), self._holdings.sizes
        for choice in choose(candidates, sizes, holders, need):
            owner = owners[choice.candidate]
            if isinstance(owner, int):
                self.drop((owner,))
            else:
                self._give_up(owner)
        return (self._freed_anywhere if namespace is None else self.freed_in(namespace)) - freed

    def _candidates(self, namespace: str | None, before: float) -> tuple[list[Candidate], list[int | tuple[str, int]]]:
        candidates: list[Candidate] = []
        owners: list[int | tuple[str, int]] = []
        sizes, now = self._holdings.sizes, self._now
        for number, action in enumerate(self._holdings.actions):
            if number in self.gone or action.last >= before or namespace not in (None, action.namespace):
                continue
            share = action.own + sum(sizes[b] / self._named[action.namespace, b] for b in action.blobs)
            seconds = min(max(action.seconds, LEAST_SECONDS), MAX_SECONDS)
            worth = value(seconds, now - action.last, 0, share)
            own = action.own if namespace is None else 0
            candidates.append(Candidate(action.key, action.blobs, own, worth))
            owners.append(number)
        for each in self._holdings.loose:
            place = each.namespace, each.blob
            if place in self.given_up or each.last >= before or namespace not in (None, each.namespace):
                continue
            size = sizes[each.blob]
            worth = value(size / TRANSFER, now - each.last, 0, size)
            key = f"{each.namespace}\0{self._holdings.digests[each.blob]}"
            candidates.append(Candidate(key, (each.blob,), 0, worth))
            owners.append(place)
        return candidates, owners

    def _held(self, namespace: str | None) -> list[int]:
        """How many actions and loose places hold each blob: in the namespace, or anywhere."""
        held = [0] * len(self._holdings.sizes)
        for (of, blob), count in self._named.items():
            if namespace in (None, of):
                held[blob] += count
        for each in self._holdings.loose:
            if namespace in (None, each.namespace) and (each.namespace, each.blob) not in self.given_up:
                held[each.blob] += 1
        return held
