"""Shares: the slot-seconds that people and builds used lately; who used least goes next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from worker.fleet.limits import HALF_LIFE, MAX_PEOPLE, SHARE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Container

MAX_EXPONENT = 200.0
"""Half-lives after which weights are written anew, long before they leave what a float holds."""
FORGOTTEN = 1.0
"""Slot-seconds that are not worth remembering."""


class Shares:
    """Use of each name, which fades by half in HALF_LIFE seconds.

    Use is kept in the weight of a fixed moment: what is added later weighs more, instead of all else less. So use need
    not be computed anew as time passes, and may be compared as it stands.
    """

    def __init__(self) -> None:
        self._moment = 0.0
        self._weighed: dict[str, float] = {}

    def add(self, now: float, name: str, seconds: float) -> None:
        """Count slot-seconds; negative ones take back what was counted too much."""
        if now - self._moment > MAX_EXPONENT * HALF_LIFE:
            self._begin_at(now)
        weighed = self._weighed.get(name, 0.0) + seconds * self._weight(now)
        self._weighed[name] = max(weighed, 0.0)

    def use(self, now: float, name: str) -> float:
        """Slot-seconds, faded."""
        return self._weighed.get(name, 0.0) / self._weight(now)

    def level(self, now: float, name: str) -> int:
        """What is compared: differences below SHARE_SECONDS are none."""
        return int(self._weighed.get(name, 0.0) / (self._weight(now) * SHARE_SECONDS))

    def forget(self, now: float, open_names: Container[str]) -> None:
        """Drop names that are not open and whose use has faded, and those that used least if there are too many."""
        least = FORGOTTEN * self._weight(now)
        for name in [name for name, weighed in self._weighed.items() if weighed < least and name not in open_names]:
            del self._weighed[name]
        if len(self._weighed) > MAX_PEOPLE:
            for name in sorted(self._weighed, key=lambda name: self._weighed[name])[: len(self._weighed) - MAX_PEOPLE]:
                del self._weighed[name]

    def drop(self, name: str) -> None:
        """It may be missing."""
        self._weighed.pop(name, None)

    def __len__(self) -> int:
        return len(self._weighed)

    def _weight(self, now: float) -> float:
        return math.exp2((now - self._moment) / HALF_LIFE)

    def _begin_at(self, now: float) -> None:
        faded = math.exp2(max((self._moment - now) / HALF_LIFE, -1000.0))
        self._weighed = {name: weighed * faded for name, weighed in self._weighed.items()}
        self._moment = now
