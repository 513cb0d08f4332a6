"""FleetChoice: what the user said about the fleet: what runs here, and which workers are believed."""

from __future__ import annotations

import re
from typing import NamedTuple

from cache.errors import UsageError

MOST_SLOTS = 10_000
"""Commands at the same time, as for --jobs; each has a thread."""
MOST_TRUSTED = 1_000
"""Workers; their keys go with every step."""
PATIENCE = 15.0
"""Seconds for which a server that has just gone is asked again by a build that can do nothing without it: as long as
for workers to come back to it."""
_FINGERPRINT = re.compile(r"ed25519:[A-Za-z0-9+/]{43}")


class FleetChoice(NamedTuple):
    """local_slots: RUNs that this machine executes at the same time beside the fleet's, None if nobody said: then it
    executes those that no worker can, and all where there is no fleet. trusted: fingerprints of the workers whose
    results are used, empty for all. labels: what a worker must have to get RUNs of this build."""

    local_slots: int | None = None
    trusted: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def patience(self) -> float:
        """Seconds to wait for a server that does not answer; 0 where the build can do without."""
        return PATIENCE if self.local_slots == 0 else 0.0


NO_CHOICE = FleetChoice()


def check_fingerprint(text: str, where: str) -> str:
    """The fingerprint of a worker's key. Raises UsageError."""
    if not _FINGERPRINT.fullmatch(text):
        hint = "it is `ed25519:` and 43 letters and digits, as `buildgraph fleet` shows it"
        raise UsageError(f"{where}: {text[:80]!r} is no worker's fingerprint", hint=hint)
    return text
