"""MountRota: which cache mount a worker publishes next, and when. Decides, and does nothing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from worker.fleet.mount_limits import MOST_CACHES, PUBLISH_SECONDS

if TYPE_CHECKING:
    from worker.operation import Mount


class SharedCache(NamedTuple):
    """namespace: of the leases that use it. cache: its key as builds know it. mount: one that names its directory.
    title: its id, for people. known: diff_id of the snapshot that the server has, "" for none."""

    namespace: str
    cache: str
    mount: Mount
    title: str = ""
    known: str = ""


@dataclass(slots=True, eq=False)
class _State:
    """tried_at: when it was looked at last, None for never. mark: of what was published. used: since it was looked at.
    waiting_since: when it was in use; it is looked at again once a step with it has ended well, or after a while."""

    cache: SharedCache
    tried_at: float | None = None
    mark: str = ""
    used: bool = False
    waiting_since: float | None = None
    told: bool = False


class MountRota:
    """All times are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[str, str], _State] = OrderedDict()

    def used(self, cache: SharedCache) -> None:
        """A step with it has ended well."""
        state = self._states.pop(cache[:2], None) or _State(cache)
        state.cache, state.used, state.waiting_since = cache, True, None
        self._states[cache[:2]] = state
        if len(self._states) > MOST_CACHES:
            self._states.popitem(last=False)

    def due(self, now: float) -> SharedCache | None:
        """The one to look at now, None if there is none."""
        return next((state.cache for state in self._ready() if _when(state) <= now), None)

    def wait(self, now: float) -> float | None:
        """Seconds until one is due, as far as is known; None if none is to be looked at."""
        return min((max(0.0, _when(state) - now) for state in self._ready()), default=None)

    def left(self) -> list[SharedCache]:
        """All that may hold something new, however short ago they were published."""
        return [state.cache for state in self._states.values() if state.used]

    def in_use(self, cache: SharedCache, now: float) -> None:
        """It was due, and some step has it."""
        if (state := self._states.get(cache[:2])) is not None:
            state.waiting_since = now

    def looked(self, cache: SharedCache, now: float, mark: str) -> bool:
        """It was due, and nobody had it. Whether what it holds now was not published before."""
        state = self._states.get(cache[:2])
        if state is None:
            return True
        state.used, state.tried_at, state.waiting_since = False, now, None
        # Nobody answers what is published: what the server refused, or has removed, it does not tell with leases.
        return state.mark != mark or not state.cache.known

    def published(self, cache: SharedCache, mark: str) -> None:
        """What it held when it had this mark is on the server, or never will be."""
        if (state := self._states.get(cache[:2])) is not None:
            state.mark = mark

    def failed(self, cache: SharedCache, now: float) -> None:
        """It could not be published. It is due again as if it had been."""
        if (state := self._states.get(cache[:2])) is not None:
            state.used, state.tried_at = True, now

    def first_told(self, cache: SharedCache) -> bool:
        """Whether nobody was told yet that it is not published."""
        state = self._states.get(cache[:2])
        first = state is None or not state.told
        if state is not None:
            state.told = True
        return first

    def _ready(self) -> list[_State]:
        return [state for state in self._states.values() if state.used]


def _when(state: _State) -> float:
    since = state.tried_at if state.waiting_since is None else state.waiting_since
    return float("-inf") if since is None else since + PUBLISH_SECONDS
