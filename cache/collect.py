"""Collect: the automatic clean-up after a build, by a policy, in bounded time, never in the way of the build."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.disk_usage import TookTooLong, disk_bytes, free_bytes
from cache.errors import BuildgraphError
from cache.readers import READERS
from cache.size_text import bytes_text

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from cache.prune import Limits, Pruned

DAY = 86_400.0
"""So often everything is looked at, also what is not counted as it is written, such as cache mounts."""
SLACK = 0.9
"""Beyond a limit it is cleaned up to this part of it, so that not every build has to."""


class GcPolicy(NamedTuple):
    """max_used: bytes of the store; None: half of its disk. min_free: bytes of the disk that stay free. unused_for:
    seconds after which what no build used goes; None: never for that reason alone. The texts are what whoever set
    them wrote, for whoever asks why something went; "" if nobody did."""

    enabled: bool = True
    max_used: int | None = None
    min_free: int | None = None
    unused_for: float | None = None
    max_used_text: str = ""
    min_free_text: str = ""
    unused_for_text: str = ""


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

    now = time.time()
    began = _opened_at(store)
    # With a limit of what is there now nothing goes, but all is counted, and records that nothing needs do go.
    passes = [(Filters(), Limits(max_used=1 << 62))]
    if policy.unused_for is not None:
        text = policy.unused_for_text or f"{policy.unused_for / DAY:.3g} days"
        passes = [(Filters(unused_since=now - policy.unused_for, rule=f"unused for {text}"), Limits())]
    used_text = policy.max_used_text or ("half of its disk" if policy.max_used is None else "")
    limits = Limits(max_used, policy.min_free, used_text, policy.min_free_text, SLACK)
    passes.append((Filters(), limits))
    items = freed = waiting = 0
    notes: list[str] = []
    for number, (filters, limit) in enumerate(passes):
        if number and not _state(store, policy, max_used).over:
            break
        try:
            pruned = prune(store, filters, limit, deadline=deadline, keep_since=began)
        except TookTooLong:
            # Not at the end of each build again: when a tenth more was written, or tomorrow.
            with store.transaction() as view:
                view.set_measured(int(max_used * SLACK), now)
            break
        items += len(pruned.going)
        freed += pruned.reclaimed.bytes
        waiting = pruned.reclaimed.waiting
        if number:
            notes = _over(pruned, limits)
    lines = []
    if items:
        count = "1 item" if items == 1 else f"{items} items"
        lines.append(f"cleaned up the cache: {count}, {bytes_text(freed)} came back")
        if waiting:
            lines.append(f"{bytes_text(waiting)} will when other builds have ended")
    return ", ".join([*lines, *notes]) or None


def _over(pruned: Pruned, limits: Limits) -> list[str]:
    """What there is to say of limits that do not hold."""
    recent, rules = bytes_text(pruned.recent), " and ".join(limits.rules)
    if pruned.alone:
        return [f"this build alone uses {recent}, but the policy says that {rules}"]
    if pruned.short:
        short, pinned = bytes_text(pruned.short), bytes_text(pruned.pinned)
        return [f"so that {rules} another {short} had to go, but named images keep {pinned}, this build {recent}"]
    return []


def _opened_at(store: LmdbStore) -> float:
    """When this process opened the store, in whole seconds since the epoch: what was used since then this build, or
    one beside it, used."""
    return float(int(os.stat(os.path.join(store.directory, READERS, store.reader)).st_mtime))


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
