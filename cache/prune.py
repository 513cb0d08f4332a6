"""Prune: decides what leaves the store by filters and limits, removes it, and reports it."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.condemned import Reclaimed, reclaim
from cache.digest import Digest
from cache.disk_usage import free_bytes
from cache.errors import StoreProblem
from cache.evict import Order, evict
from cache.eviction import Candidate, choose, value
from cache.housekeeping import tidy
from cache.naming import NAMING, blobs_in
from cache.prepared import remove_prepared
from cache.run_dir import sweep
from cache.size_text import bytes_text
from cache.stocktaking import take_inventory
from cache.store import Batch
from cache.stored_mounts import remove_mount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.inventory import Inventory, Item
    from cache.lmdb_store import LmdbStore
    from cache.readers import Live


class Filters(NamedTuple):
    """What may go; what is not given does not restrict. unused_since: last used before, in seconds since the epoch.
    projects: names, paths or ends of them. kinds: see `inventory.KINDS`. rule: in words, for whoever asks why."""

    unused_since: float | None = None
    projects: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    rule: str = ""

    @property
    def any(self) -> bool:
        return self.unused_since is not None or bool(self.projects or self.kinds)

    def match(self, item: Item) -> bool:
        if self.unused_since is not None and item.last >= self.unused_since:
            return False
        if self.projects and not any(_is_project(name, wanted) for name in item.projects for wanted in self.projects):
            return False
        return not self.kinds or item.kind in self.kinds


class Limits(NamedTuple):
    """Bytes. max_used: of the store. min_free: of the disk. max_used_text, min_free_text: the same as whoever set the
    limit wrote it. slack: beyond a limit it is cleaned up to this part of max_used."""

    max_used: int | None = None
    min_free: int | None = None
    max_used_text: str = ""
    min_free_text: str = ""
    slack: float = 1.0

    @property
    def rules(self) -> list[str]:
        """In words."""
        found = []
        if self.max_used is not None:
            found.append(f"the store uses no more than {self.max_used_text or bytes_text(self.max_used)}")
        if self.min_free is not None:
            found.append(f"{self.min_free_text or bytes_text(self.min_free)} of the disk are free")
        return found

    def need(self, inventory: Inventory, free: int, condemned: int) -> int | None:
        """Bytes that must come back; None if there is no limit, so that all goes."""
        needs = []
        if self.max_used is not None:
            needs.append(inventory.used - condemned - int(self.max_used * self.slack))
        if self.min_free is not None:
            needs.append(self.min_free - free - condemned)
        return max(needs) if needs else None


class Going(NamedTuple):
    """value: seconds saved a byte, by which it was chosen. rule: why, in words. freed: bytes that it gives back."""

    item: Item
    value: float
    rule: str
    freed: int


class Pruned(NamedTuple):
    """going: what went, or would. kept: what could not go, with the reason. pinned: bytes that named images keep.
    reclaimed: bytes that came back, and those that wait. used: bytes in use afterwards, about. short: bytes that the
    limits still ask for. recent: bytes of what was not to go because it was used just now. alone: these were over the
    limit by themselves, so that they could not be spared."""

    going: tuple[Going, ...] = ()
    kept: tuple[tuple[Item, str], ...] = ()
    pinned: int = 0
    reclaimed: Reclaimed = Reclaimed()
    used: int = 0
    short: int = 0
    recent: int = 0
    alone: bool = False


class Choices(NamedTuple):
    """going: in that order. short, recent, alone: see `Pruned`."""

    going: tuple[Going, ...]
    short: int
    recent: int
    alone: bool


def plan_prune(
    inventory: Inventory, filters: Filters, limits: Limits, free: int, now: float, keep_since: float | None = None
) -> Choices:
    """What goes. free: bytes of the disk. keep_since: see `prune`. Touches nothing."""
    need = limits.need(inventory, free, inventory.unused)
    recent = 0 if keep_since is None else inventory.held(item for item in inventory.items if item.last >= keep_since)
    alone = limits.max_used is not None and recent > limits.max_used
    before = math.inf if keep_since is None or alone else keep_since
    may = [item for item in inventory.items if not item.images and item.last < before and filters.match(item)]
    candidates = []
    for item in may:
        worth = value(item.seconds, now - item.last, item.uses, inventory.share(item))
        candidates.append(Candidate(item.key, item.blobs, item.own, worth))
    going = tuple(
        Going(item := may[number], candidates[number].value, _rule(filters, limits, item.kind), freed)
        for number, freed in choose(candidates, inventory.sizes, inventory.holders, need)
    )
    freed = sum(each.freed for each in going)
    short = limits._replace(slack=1.0).need(inventory, free, inventory.unused) or 0
    return Choices(going, max(0, short - freed), recent, alone)


def prune(
    store: LmdbStore,
    filters: Filters,
    limits: Limits,
    *,
    dry_run: bool = False,
    deadline: float | None = None,
    keep_since: float | None = None,
) -> Pruned:
    """Remove it. deadline: as `time.monotonic`; what is left by then stays for the next time. keep_since: what was
    used since then (seconds since the epoch) stays, unless it is over the limit by itself.

    Raises StoreProblem, TookTooLong before anything was removed.
    """
    store.commit(Batch())
    sweep(store.directory)
    now = time.time()
    inventory = take_inventory(store, deadline=deadline, titles=deadline is None)
    choices = plan_prune(inventory, filters, limits, free_bytes(store.directory), now, keep_since)
    going = choices.going
    pinned = inventory.held(inventory.kept_by_images(), own=False)
    pruned = Pruned(
        going, (), pinned, Reclaimed(waiting=inventory.unused), inventory.used - sum(each.freed for each in going),
        choices.short, choices.recent, choices.alone,
    )  # fmt: skip
    if dry_run:
        return pruned
    kept, freed = _remove_directories(store, going)
    stay = {item.key for item, _ in kept}
    orders = {
        each.item.key: Order(each.rule, each.freed)
        for each in going
        if each.item.kind not in ("mount", "prepared") and each.item.key not in stay
    }
    orphans = find_orphans(store) if deadline is None or inventory.unused else set()
    with store.transaction() as view:
        gone = evict(view, store.files, orders, orphans, now)
        tidy(view, now, stats=not filters.any and limits == Limits())
        view.set_measured(max(0, pruned.used), now)
    kept += [(each.item, "an image needs it") for each in going if each.item.key in orders.keys() - gone.items]
    unmoved = {item.key for item, _ in kept}
    done = tuple(each for each in going if each.item.key not in unmoved)
    reclaimed = reclaim(store, deadline)
    return pruned._replace(
        going=done, kept=tuple(kept), reclaimed=reclaimed._replace(bytes=reclaimed.bytes + freed)
    )


def find_orphans(store: LmdbStore) -> set[str]:
    """Blobs that no record names and that are not condemned yet, as `str(Digest)`: a kill between file and record
    leaves them. A build may name one of them meanwhile; `evict` looks again."""
    found = set()
    with store.view() as view:
        known = {bytes.fromhex(key[:64]) for key, _ in view.scan("condemned")}
        for table in NAMING:
            for _, record in view.scan(table):
                known.update([bytes.fromhex(text[:64]) for text in blobs_in(table, record)])
        for hash_, size in view.blob_sizes():
            if _is_hash(hash_) and bytes.fromhex(hash_) not in known:
                found.add(str(Digest(hash_, size)))
    for name, is_blob in store.files.scan():
        hash_ = name.replace("/", "")
        if is_blob and bytes.fromhex(hash_) not in known:
            with contextlib.suppress(OSError):
                found.add(str(Digest(hash_, os.path.getsize(store.files.path_of(hash_)))))
    return found


def _remove_directories(store: LmdbStore, going: Sequence[Going]) -> tuple[list[tuple[Item, str]], int]:
    """Remove mounts and prepared layers: (those that are in use, bytes that came back)."""
    kept: list[tuple[Item, str]] = []
    freed = 0
    prepared = [each for each in going if each.item.kind == "prepared"]
    try:
        for each in going:
            if each.item.kind == "mount":
                name = each.item.key.partition(":")[2]
                if remove_mount(store.directory, name, store.scratch("mount")):
                    freed += each.freed
                else:
                    kept.append((each.item, "a step is using it"))
        if prepared:
            relatives = [each.item.key.partition(":")[2] for each in prepared]
            others = remove_prepared(store.directory, store.reader, relatives, store.scratch)
            if others:
                kept += [(each.item, f"{holder_text(others)} may be using it") for each in prepared]
            else:
                freed += sum(each.freed for each in prepared)
    except OSError as error:
        raise StoreProblem(f"cannot remove {error.filename or store.directory}: {error.strerror}") from None
    return kept, freed


def holder_text(holders: Sequence[Live]) -> str:
    """Which running builds: `process 12 (since 10:02)`."""
    texts = [f"process {each.pid} (since {time.strftime('%H:%M', time.localtime(each.since))})" for each in holders[:3]]
    more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
    return ", ".join(texts) + more


_UNNEEDED = {
    "mount": "cache mounts belong to no image",
    "prepared": "it is made ready again when a step needs it",
}
"""Why what is asked for without filters and limits may go; of other kinds, that no named image needs it."""


def _rule(filters: Filters, limits: Limits, kind: str) -> str:
    parts = [filters.rule] if filters.rule else []
    if limits.rules:
        parts.append(f"least worth, so that {' and '.join(limits.rules)}")
    return "; ".join(parts) or _UNNEEDED.get(kind, "no named image needs it")


def _is_project(name: str, wanted: str) -> bool:
    """Whether a project is meant: by its whole name or the end of its path."""
    wanted = wanted.rstrip("/")
    return name.rstrip("/") == wanted or name.rstrip("/").endswith(f"/{wanted.lstrip('/')}")


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
