"""Why: the reason of each decision, as a sentence; History: what was decided about each action, bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from typing import NamedTuple

from worker.fleet.limits import HISTORY_ACTIONS, HISTORY_DECISIONS


class Why(Enum):
    """Each value is the sentence, with places for what differs."""

    # When it starts.
    ALONE = "nothing else was waiting that could start"
    LONGEST_PATH = "its path to the end of its build is the longest of those that waited: {seconds:.0f} s"
    BUILD_SHARE = "its build has used the least of those of {person} lately"
    FAIR_SHARE = "{person} has used the least of all who waited lately"
    # Where it starts.
    HAS_LAYERS = "{worker} has {held} of its {size} of layers, and no free worker has more"
    HAS_ALL_LAYERS = "{worker} has its layers"
    WAITED = "{worker} has its layers, and was waited for"
    FREE = "{worker} is free, and no free worker has any of its layers"
    ANYWHERE = "{worker} is free, and there is nothing to move"
    LATE = "late: it runs on {first} longer than expected, so {worker} makes it, too"
    ADOPTED = "{worker} executes it already, from before the scheduler started"
    BACK = "{worker} came back with it"
    RUNS = "{worker} executes it already, for another build"
    # Why it waits.
    NO_SLOT = "every worker that may take it is busy"
    WAITS = "waits for {worker}: to move {size} takes longer than the {seconds:.1f} s until it is free"
    NO_TRUSTED_SLOT = "every worker that its build trusts and that may take it is busy"
    AWAY = "the workers that may take it are away or silent"
    NOBODY_YET = "no worker has joined so far that may take it"
    # Why it waits again.
    EXPIRED = "the lease of {worker} expired"
    LOST = "{worker} came back without it"
    GAVE_BACK = "{worker} gave it back: {text}"
    UNSERVED = "the build that sent its secrets to {worker} has ended, so it begins again with those of another"
    # Why no worker makes it.
    NO_WORKER = "there is no worker"
    PLATFORM = "no worker is for {platform}"
    MEMORY = "no worker has {memory} of memory"
    LABELS = "no worker has the labels {labels}"
    TRUSTED = "no worker that the build trusts can take it"
    TOGETHER = "no worker has its platform, its memory and its labels together"
    TRIED = "every worker that may take it gave it back"
    ATTEMPTS = "{attempts} workers ended without a result"
    GONE = "the workers that may take it did not come back"
    DRAINING = "the workers that may take it are draining"
    TOO_MANY = "too many actions wait already"
    TOO_MUCH = "too much waits already"
    TOO_MANY_KINDS = "actions with too many different needs wait already"
    TOO_MANY_OF_BUILD = "its build wants too many actions already"
    NOT_OPEN = "its build is not open, or too many are"
    # How it ends, and why a lease does.
    DONE = "{worker} made it in {seconds:.1f} s"
    FAILED = "its command failed on {worker} after {seconds:.1f} s"
    FIRST = "{first} was first"
    UNWANTED = "no build wants it any more"
    NOT_HELD = "the lease is not the worker's: it ended, was taken back or never was"
    NO_ROOM = "the worker says that it holds more leases than it has slots, or than an action may have"

    def sentence(self, **details: object) -> str:
        """The reason in words."""
        return self.value.format(**details)


class Decision(NamedTuple):
    """at: the clock of the events. worker: whom it is about, "" for nobody. text: one sentence."""

    at: float
    why: Why
    worker: str
    text: str


class History:
    """The latest decisions of the latest actions."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, deque[Decision]] = OrderedDict()

    def note(self, action: str, decision: Decision) -> None:
        """Keep it; the action that nothing was decided about for the longest time is forgotten for it."""
        kept = self._kept.get(action)
        if kept is None:
            kept = self._kept[action] = deque(maxlen=HISTORY_DECISIONS)
            if len(self._kept) > HISTORY_ACTIONS:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(action)
        kept.append(decision)

    def of(self, action: str) -> tuple[Decision, ...]:
        """Oldest first; empty if nothing is known."""
        return tuple(self._kept.get(action, ()))

    def beginning_with(self, text: str) -> tuple[str, ...]:
        """Actions whose key begins like this, the latest last."""
        return tuple(action for action in self._kept if action.startswith(text))


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
