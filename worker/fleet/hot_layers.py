"""HotLayers: the layers that a worker has at hand, bounded by bytes; what no step has used for longest goes first."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.condemned import reclaim
from cache.disk_usage import disk_bytes
from cache.errors import StoreProblem
from cache.evict import Order, evict
from cache.naming import layer_in
from cache.prepared import remove_prepared
from cache.prune import find_orphans
from cache.result import Layer
from cache.store import SNAPSHOTS, Batch
from cache.usage import layer_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cache.lmdb_store import LmdbStore
    from worker.library import LayerLibrary
    from worker.run import Machine

MOST_BYTES = 20 << 30
SHARE = 10
"""Unless somebody says otherwise: 20 GiB, or a tenth of the disk if that is less."""
SLACK = 0.9
"""Beyond the limit as much goes as leaves this part of it, so that not every lease has to clean up."""
RECLAIM_SECONDS = 30.0
ENTRIES_KEPT = 200_000
"""Names in indexes that are held in memory, some 100 MB."""
COARSE_SECONDS = 3600.0
"""A layer's last use is written down, as its file's time, this often at most."""
RULE = "least lately used of a worker's layers"


class _Held(NamedTuple):
    """size: bytes, with what was prepared of it. touched: when its last use was written down."""

    layer: Layer
    size: int
    touched: float = 0.0


class HotLayers:
    """May be used by several threads at once.

    changed: is told (added, removed) diff_ids, in any thread.
    """

    def __init__(self, store: LmdbStore, library: LayerLibrary, machine: Machine | None, limit: int) -> None:
        self._store = store
        self._library = library
        self._machine = machine
        self._limit = limit
        self._changed = threading.Condition()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._total = 0
        self._users: Counter[str] = Counter()
        self._going: frozenset[str] = frozenset()
        self._kept: set[str] = set()
        """Layers that named images need."""
        self._evicting = threading.Lock()
        self.changed: Callable[[Sequence[str], Sequence[str]], None] = lambda *_: None

    def load(self) -> None:
        """What the store has from before. Raises StoreProblem."""
        found = []
        for _, record in self._store.scan("layers"):
            with contextlib.suppress(*encoding.UNREADABLE):
                layer = Layer.from_json(encoding.parse(record))
                blobs = [blob for blob in (layer.tar, layer.listing) if blob is not None]
                if len(blobs) == 2 and all(map(self._store.has_blob, blobs)):
                    found.append((self._last_use(layer), layer))
        with self._changed:
            for last, layer in sorted(found, key=lambda each: each[0]):
                self._put(_Held(layer, self._size(layer), last))

    def diff_ids(self) -> list[str]:
        """Of all that are here, the last used first."""
        with self._changed:
            return list(reversed(self._held))

    @property
    def total(self) -> int:
        """Bytes of all."""
        return self._total

    # use

    def hold(self, diff_ids: Iterable[str]) -> None:
        """Keep these, also what comes under these names later, until `let_go` as often. Waits for a removal."""
        wanted = tuple(diff_ids)
        with self._changed:
            while not self._going.isdisjoint(wanted):
                self._changed.wait()
            self._users.update(wanted)

    def let_go(self, diff_ids: Iterable[str]) -> None:
        with self._changed:
            for diff_id in diff_ids:
                self._users[diff_id] -= 1
                if self._users[diff_id] <= 0:
                    del self._users[diff_id]

    def has(self, diff_id: str) -> Layer | None:
        """The layer as the store has it. Hold it before."""
        with self._changed:
            found = self._held.get(diff_id)
        return None if found is None else found.layer

    def add(self, layers: Iterable[Layer]) -> None:
        """These are in the store, or were used just now: the last used ones of all."""
        added = []
        now = time.time()
        for layer in layers:
            size = self._size(layer)
            with self._changed:
                known = self._held.get(layer.diff_id, _Held(layer, 0, now))
                stale = now - known.touched > COARSE_SECONDS
                if layer.diff_id not in self._held:
                    added.append(layer.diff_id)
                self._put(_Held(known.layer, size, now if stale else known.touched))
            if stale:
                self._touch(layer)
        if added:
            self.changed(added, ())

    def _put(self, held: _Held) -> None:
        before = self._held.pop(held.layer.diff_id, None)
        self._total += held.size - (0 if before is None else before.size)
        self._held[held.layer.diff_id] = held

    def _size(self, layer: Layer) -> int:
        assert layer.tar is not None
        assert layer.listing is not None
        size = layer.tar.size + layer.listing.size
        for path in [] if self._machine is None else self._machine.snapshotter.paths(layer.diff_id):
            with contextlib.suppress(OSError):
                # An extracted layer is as large as its tar, about: to count it would take as long as to extract it.
                size += os.stat(path).st_size if os.path.isfile(path) else layer.tar.size
        return size

    def _last_use(self, layer: Layer) -> float:
        assert layer.tar is not None
        try:
            return os.stat(self._store.files.path(layer.tar)).st_mtime
        except OSError:  # a small one, which has no file
            return 0.0

    def _touch(self, layer: Layer) -> None:
        assert layer.tar is not None
        with contextlib.suppress(OSError):
            os.utime(self._store.files.path(layer.tar))

    # removal

    def tidy(self) -> int:
        """Remove what is too much, and forget what can be read again; bytes that went. Raises StoreProblem.

        Named images of the store stay, and whatever a step is using.
        """
        self._library.shed(ENTRIES_KEPT)
        if self._total <= self._limit or not self._evicting.acquire(blocking=False):
            return 0
        try:
            return self._evict(self._total - int(self._limit * SLACK))
        finally:
            self._evicting.release()

    def make_room(self, wanted: int) -> int:
        """Remove so much of what no step is using, or nothing if there is not so much; bytes that went. Raises
        StoreProblem."""
        with self._evicting:
            return self._evict(wanted) if self._unused() >= wanted else 0

    def drop(self, diff_id: str) -> None:
        """Remove one that will hardly be wanted again, unless a step is using it. Raises StoreProblem."""
        with self._evicting:
            with self._changed:
                free = diff_id in self._held and diff_id not in self._users and diff_id not in self._kept
                going = {diff_id: self._held[diff_id]} if free else {}
                self._going = frozenset(going)
            self._take_out(going)

    def _unused(self) -> int:
        """Bytes of what may go."""
        with self._changed:
            held = self._held.items()
            return sum(each.size for name, each in held if name not in self._users and name not in self._kept)

    def _evict(self, need: int) -> int:
        return self._take_out(self._choose(need))

    def _take_out(self, going: dict[str, _Held]) -> int:
        """Bytes that went. going: what nobody gets hold of meanwhile."""
        if not going:
            return 0
        try:
            gone = self._remove(going)
        finally:
            with self._changed:
                self._going = frozenset()
                self._changed.notify_all()
        self.changed((), [layer.diff_id for layer in gone])
        return sum(going[layer.diff_id].size for layer in gone)

    def _choose(self, need: int) -> dict[str, _Held]:
        """By diff_id; nobody gets hold of them until they are gone."""
        chosen: dict[str, _Held] = {}
        with self._changed:
            for diff_id, held in self._held.items():
                if need <= 0:
                    break
                if diff_id not in self._users and diff_id not in self._kept:
                    chosen[diff_id] = held
                    need -= held.size
            self._going = frozenset(chosen)
        return chosen

    def _remove(self, going: dict[str, _Held]) -> list[Layer]:
        """Those that went: what a named image of the store needs does not."""
        store = self._store
        store.commit(Batch())
        orders = {layer_key(diff_id): Order(RULE, held.size) for diff_id, held in going.items()}
        with store.view() as view:
            for key, record in view.scan("results"):
                diff_id = layer_in(record)
                if diff_id in going:
                    orders[f"result:{key}"] = Order(RULE, going[diff_id].size)
        # Logs of commands that failed, above all; unless a step is about to publish one.
        orphans = find_orphans(store) if not self._users else set()
        with store.transaction() as view:
            evict(view, store.files, orders, orphans, time.time())
        gone = [held.layer for diff_id, held in going.items() if store.get("layers", diff_id) is None]
        self._forget_prepared(gone)
        for layer in gone:
            self._library.release(layer.diff_id)
            for blob in (layer.tar, layer.listing):
                assert blob is not None
                with contextlib.suppress(StoreProblem):
                    own = store.blob_path(blob)
                    if own != store.files.path(blob):
                        store.discard(own, blob)  # the file that it was made of
        reclaim(store, time.monotonic() + RECLAIM_SECONDS)
        with self._changed:
            for layer in gone:
                self._total -= self._held.pop(layer.diff_id).size
            self._kept |= going.keys() - {layer.diff_id for layer in gone}
        return gone

    def _forget_prepared(self, layers: Sequence[Layer]) -> None:
        """Unmount them, and remove what was made of them, unless another process may be using it."""
        if self._machine is None:
            return
        snapshotter, root = self._machine.snapshotter, os.path.join(self._store.directory, SNAPSHOTS)
        paths = {layer.diff_id: snapshotter.paths(layer.diff_id) for layer in layers}
        every = [path for each in paths.values() for path in each]
        self._machine.keeper.forget(every)
        for diff_id in paths:
            snapshotter.forget(diff_id)
        shared = [os.path.relpath(path, root) for path in every if path.startswith(f"{root}/")]
        try:
            remove_prepared(self._store.directory, self._store.reader, shared, self._store.scratch)
        except OSError as error:
            raise StoreProblem(f"cannot remove what was made of a layer: {error.strerror}") from None
        for path in every:
            if not path.startswith(f"{root}/"):
                self._store.discard(path)


def usual_limit(store: str) -> int:
    """Bytes. Raises OSError."""
    return min(MOST_BYTES, disk_bytes(store) // SHARE)
