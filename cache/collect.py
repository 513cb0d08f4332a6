"""Collect: the automatic clean-up after a build, by a policy, in bounded time, never in the way of the build."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from cache.disk_usage import TookTooLong, disk_bytes, free_bytes
from cache.errors import BuildgraphError

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore

DAY = 86_400.0
"""So often everything is looked at, also what is not counted as it is written, such as cache mounts."""
SLACK = 0.9
"""Beyond a limit it is cleaned up to this part of it, so that not every build has to."""


class GcPolicy(NamedTuple):
    """max_used: bytes of the store; None: half of its disk. min_free: bytes of the disk that stay free. unused_for:
    seconds after which what no build used goes; None: never for that reason alone."""

    enabled: bool = True
    max_used: int | None = None
    min_free: int | None = None
    unused_for: float | None = None


RETRY_SECONDS = 600.0
"""If the last clean-up could not reach the limit, as when images by name need more, the next one comes after this, or
when a part of RETRY_PART of the limit was written."""
RETRY_PART = 0.05


class _State(NamedTuple):
    """measured_at: seconds since the epoch, of the last inventory. written: bytes since. over: a limit is."""

    measured_at: float
    written: int
    over: bool


def collect_after_build(store: LmdbStore, policy: GcPolicy, deadline_seconds: float = 2.0) -> str | None:
    """Clean up if the policy asks for it; a line that tells what went, None if nothing did. Raises nothing.

    Looks at one record and the disk's free space, unless these say that there is something to do. What is not done
    by the deadline is for the next time.
    """
    if not policy.enabled:
        return None
    try:
        max_used = _max_used(store, policy)
        state = _state(store, policy, max_used)
        age = time.time() - state.measured_at
        tried = age < RETRY_SECONDS and state.written < max_used * RETRY_PART
        if tried or (age < DAY and not state.over):
            return None
        return _collect(store, policy, max_used, time.monotonic() + deadline_seconds)
    except (BuildgraphError, OSError):
        return None


def _collect(store: LmdbStore, policy: GcPolicy, max_used: int, deadline: float) -> str | None:
    from cache.prune import Filters, Limits, prune
    from cache.size_text import bytes_text

    now = time.time()
    # With a limit of what is there now nothing goes, but all is counted, and records that nothing needs do go.
    passes = [(Filters(), Limits(max_used=1 << 62))]
    if policy.unused_for is not None:
        rule = f"unused for {policy.unused_for / DAY:.3g} days, as the policy says"
        passes = [(Filters(unused_since=now - policy.unused_for, rule=rule), Limits())]
    passes.append((Filters(), Limits(int(max_used * SLACK), policy.min_free)))
    items = freed = waiting = 0
    for number, (filters, limits) in enumerate(passes):
        if number and not _state(store, policy, max_used).over:
            break
        try:
            pruned = prune(store, filters, limits, deadline=deadline)
        except TookTooLong:
            # Not at the end of each build again: when a tenth more was written, or tomorrow.
            with store.transaction() as view:
                view.set_measured(int(max_used * SLACK), now)
            break
        items += len(pruned.going)
        freed += pruned.reclaimed.bytes
        waiting = pruned.reclaimed.waiting
    if not items:
        return None
    line = f"cleaned up the cache: {items} {'item' if items == 1 else 'items'}, {bytes_text(freed)} came back"
    return f"{line}, {bytes_text(waiting)} will when other builds have ended" if waiting else line


def _max_used(store: LmdbStore, policy: GcPolicy) -> int:
    if policy.max_used is not None:
        return policy.max_used
    return disk_bytes(store.directory) // 2


def _state(store: LmdbStore, policy: GcPolicy, max_used: int) -> _State:
    with store.view() as view:
        measured, written = view.measured(), view.written()
    if measured is None:
        return _State(0.0, 0, over=False)
    since = max(0, written - measured.written)
    over = measured.used + since > max_used
    if policy.min_free is not None and not over:
        over = free_bytes(store.directory) < policy.min_free
    return _State(measured.at, since, over)
