"""Hopeless: actions that no worker will ever take are given up, so that their clients make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.fleet.commands import GiveUp
from worker.fleet.decisions import Why, size
from worker.fleet.limits import NOBODY_SECONDS
from worker.fleet.needs import Kind

if TYPE_CHECKING:
    from worker.fleet.book import Book
    from worker.fleet.leases import OpenAction
    from worker.fleet.pools import Pool


class Hopeless:
    """Workers that were there a moment ago may come back, and those of a scheduler that just started may come; nothing
    else is worth waiting for."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._born: float | None = None

    def give_up(self) -> None:
        """Whatever waits and will wait for ever."""
        book = self._book
        if self._born is None:
            self._born = book.now
        for pool in tuple(book.pools):
            if pool.able or not pool.waiting:
                pool.nobody_since = None
                continue
            if pool.nobody_since is None:
                pool.nobody_since = book.now
            may_come = pool.fits or (not pool.kind.tried and book.now < self._born + NOBODY_SECONDS)
            if may_come and book.now < pool.nobody_since + NOBODY_SECONDS:
                continue
            why = self._why(pool)
            keys = {key: None for lines in pool.waiting.values() for line in lines.values() for key in line}
            for key in sorted(keys, key=lambda key: book.actions[key].place):
                self.drop(book.actions[key], why, **self._details(pool.kind))

    def drop(self, action: OpenAction, why: Why, **details: object) -> None:
        """Give up one that has no leases."""
        text = self._book.note(action, why, None, **details)
        self._book.commands.append(GiveUp(self._book.forget(action), action.key, text))

    def _why(self, pool: Pool) -> Why:
        """What the workers that are there lack."""
        kind, members = pool.kind, [member for member in self._book.members if member.present]
        if kind.tried:
            return Why.TRIED
        if pool.fits:
            return Why.GONE
        if not members:
            return Why.NO_WORKER
        if any(member.fits(kind) for member in members):
            return Why.DRAINING
        if kind.workers and any(member.fits(kind._replace(workers=frozenset())) for member in members):
            return Why.TRUSTED
        if not any(member.fits(Kind(platform=kind.platform)) for member in members):
            return Why.PLATFORM
        if not any(member.fits(Kind(memory=kind.memory)) for member in members):
            return Why.MEMORY
        if not any(member.fits(Kind(labels=kind.labels)) for member in members):
            return Why.LABELS
        return Why.TOGETHER

    def _details(self, kind: Kind) -> dict[str, object]:
        there = [member.labels for member in self._book.members if member.present]
        missing = [each for each in kind.labels if all(labels.get(each[0]) != each[1] for labels in there)]
        labels = ", ".join(f"{name}={value}" for name, value in missing or kind.labels)
        return {"platform": kind.platform, "memory": size(kind.memory), "labels": labels}
