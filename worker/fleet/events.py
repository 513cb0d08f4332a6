"""What happens to the scheduler: workers come and go, builds want actions, leases end, time passes.

`now` is in seconds of one clock that never goes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.fleet.needs import Needs


class Held(NamedTuple):
    """A lease that a worker that joins still works on, perhaps from an earlier scheduler."""

    lease: str
    action: str
    seconds_so_far: float


class WorkerJoined(NamedTuple):
    """A worker's stream is open, for the first time or again. worker: its identity. name: for people. memory: bytes.
    layers: diff_ids that it holds. caches: ids of cache mounts that it has. key: Ed25519, which it has shown to be its
    own. drains: it takes nothing new, from the first moment."""

    now: float
    worker: str
    name: str
    slots: int
    memory: int
    platforms: frozenset[str]
    labels: Mapping[str, str] = {}
    layers: frozenset[str] = frozenset()
    caches: frozenset[str] = frozenset()
    leases: tuple[Held, ...] = ()
    key: bytes = b""
    drains: bool = False


class WorkerLeft(NamedTuple):
    """Its stream broke. Its leases go on until they expire; it may come back with them."""

    now: float
    worker: str


class WorkerDrains(NamedTuple):
    """It finishes what it has and takes nothing new."""

    now: float
    worker: str


class WorkerResumes(NamedTuple):
    """It takes actions again."""

    now: float
    worker: str


class WorkerLayers(NamedTuple):
    """What it holds has changed. caches: all that it has now, None if they are as they were."""

    now: float
    worker: str
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    caches: frozenset[str] | None = None


class BuildOpened(NamedTuple):
    """person: who builds; shares are between people first."""

    now: float
    build: str
    person: str


class BuildClosed(NamedTuple):
    """It ended or its client went away: it wants nothing more."""

    now: float
    build: str


class Wanted(NamedTuple):
    """A build wants an action's result. The needs that the first build says count; `critical` is the highest."""

    now: float
    build: str
    action: str
    needs: Needs


class Unwanted(NamedTuple):
    """A build does not want it any more."""

    now: float
    build: str
    action: str


class Renewed(NamedTuple):
    """A worker is alive, and works on these leases."""

    now: float
    worker: str
    leases: tuple[str, ...]


class Finished(NamedTuple):
    """It has a result. ok: False if the command itself failed, which is a result, too. layers: it holds them now."""

    now: float
    worker: str
    lease: str
    ok: bool
    layers: tuple[str, ...] = ()


class GaveBack(NamedTuple):
    """The worker could not execute it: no space, interrupted, inputs not to be had. why: its own words. leaving: it is
    about to end, which is the only reason; it may have the action again once it has joined anew, nothing before."""

    now: float
    worker: str
    lease: str
    why: str
    leaving: bool = False


class Unserved(NamedTuple):
    """The build that was to send what is secret for a lease has gone, and others want the action still."""

    now: float
    worker: str
    lease: str


class Tick(NamedTuple):
    """Time passes. Needed once a second or so: leases expire, waits end."""

    now: float


Event = (
    WorkerJoined
    | WorkerLeft
    | WorkerDrains
    | WorkerResumes
    | WorkerLayers
    | BuildOpened
    | BuildClosed
    | Wanted
    | Unwanted
    | Renewed
    | Finished
    | GaveBack
    | Unserved
    | Tick
)
