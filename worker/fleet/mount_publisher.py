"""MountPublisher: puts what a worker's cache mounts hold on the server, for workers that have none of them yet."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from cache.errors import BuildgraphError, StoreProblem
from cache.size_text import bytes_text
from cache.store import Batch
from worker.cache_mounts import mount_key, unused
from worker.fleet.mount_limits import LAST_SECONDS, MAX_SNAPSHOT
from worker.fleet.mount_rota import MountRota, SharedCache
from worker.mount_snapshot import look, pack
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.lmdb_store import LmdbStore
    from cache.result import Layer
    from worker.action import Action
    from worker.fleet.hot_layers import HotLayers
    from worker.fleet.inputs import Inputs
    from worker.fleet.publishing import Publishing
    from worker.library import LayerLibrary
    from worker.operation import Mount


class MountPublisher:
    """Has a thread of its own, which ends with the process: no step waits for it. May be used by several at once.

    shares: whether the server wants snapshots. send: tells the scheduler; whether it could.
    """

    def __init__(
        self,
        store: LmdbStore,
        library: LayerLibrary,
        hot: HotLayers,
        inputs: Inputs,
        publishing: Publishing,
        say: Callable[[str], None],
    ) -> None:
        """say: writes a line for people."""
        self._store = store
        self._library = library
        self._hot = hot
        self._inputs = inputs
        self._publishing = publishing
        self._say = say
        self._changed = threading.Condition()
        self._rota = MountRota()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None
        self.shares = False
        self.send: Callable[[pb.WorkerMessage], bool] = lambda _: False

    def used(
        self,
        namespace: str,
        said: Action,
        isolated: Action,
        snapshots: Iterable[pb.MountSnapshot],
        shown: Callable[[str], str],
    ) -> None:
        """A step has ended well. said: as the build knows it. isolated: as it was executed here. snapshots: that came
        with its lease. shown: a text without secrets."""
        if not self.shares:
            return
        known = {each.cache: each.layer.diff_id for each in snapshots}
        caches = []
        for theirs, ours in zip(_caches(said), _caches(isolated), strict=True):
            key = mount_key(theirs)
            caches.append(SharedCache(namespace, key, ours, shown(theirs.id.removeprefix("/")), known.get(key, "")))
        if not caches:
            return
        with self._changed:
            for cache in caches:
                self._rota.used(cache)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="mounts", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def finish(self) -> None:
        """The worker takes no step any more: publish what is new, as long as that may take."""
        until = time.monotonic() + LAST_SECONDS
        with self._changed:
            self.shares, left = False, self._rota.left()
        last = threading.Thread(target=self._last, args=(left, until), name="last mounts", daemon=True)
        last.start()
        last.join(LAST_SECONDS)

    def _last(self, left: list[SharedCache], until: float) -> None:
        for cache in left:
            if time.monotonic() < until:
                self._try(cache)
        with self._working:  # what was begun before is waited for, too
            pass

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self.shares or (cache := self._rota.due(time.monotonic())) is None:
                    self._changed.wait(self._rota.wait(time.monotonic()) if self.shares else None)
            self._try(cache)

    def _try(self, cache: SharedCache) -> None:
        """Never raises."""
        try:
            with self._working:
                self._publish(cache)
        except Exception as error:  # noqa: BLE001, of a thread that nobody waits for
            known = isinstance(error, BuildgraphError | OSError)
            text = getattr(error, "message", "") or str(error)
            self._say(f"{_name(cache)} is not published: {text if known else f'{type(error).__name__}: {text}'}")
            with self._changed:
                self._rota.failed(cache, time.monotonic())

    def _publish(self, cache: SharedCache) -> None:
        with unused(self._store.directory, cache.mount) as directory:
            if directory is None:
                with self._changed:
                    self._rota.in_use(cache, time.monotonic())
                return
            state = look(directory, MAX_SNAPSHOT)
            with self._changed:
                is_new = self._rota.looked(cache, time.monotonic(), state.mark)
            if not is_new:
                return
            if state.bytes > MAX_SNAPSHOT:
                self._refuse(cache)
                return
            self._inputs.check_disk(state.bytes)
            made_at = time.time()
            layer, batch = self._library.write_layer(lambda fd: pack(directory, fd))
        if layer.diff_id == cache.known:
            self._library.release(layer.diff_id)
            os.unlink(batch.files[0].path)
        else:
            self._put(cache, layer, batch, made_at)
        with self._changed:
            self._rota.published(cache, state.mark)

    def _put(self, cache: SharedCache, layer: Layer, batch: Batch, made_at: float) -> None:
        self._hot.hold([layer.diff_id])
        try:
            self._store.submit(batch)
            self._store.commit(Batch())
            self._hot.add([layer])
            self._tell(cache, layer, made_at)
        finally:
            self._hot.let_go([layer.diff_id])
            with contextlib.suppress(StoreProblem):
                self._hot.drop(layer.diff_id)  # it would drive out layers that steps want again

    def _refuse(self, cache: SharedCache) -> None:
        with self._changed:
            first = self._rota.first_told(cache)
        if first:
            self._say(f"{_name(cache)} is not published: it holds more than {bytes_text(MAX_SNAPSHOT)}")

    def _tell(self, cache: SharedCache, layer: Layer, made_at: float) -> None:
        snapshot = self._publishing.mount(cache.namespace, cache.cache, layer, made_at)
        published = pb.WorkerMessage.MountPublished(instance_name=cache.namespace, snapshot=snapshot)
        if self.send(pb.WorkerMessage(mount=published)):
            assert layer.tar is not None
            self._say(f"published {_name(cache)}, {bytes_text(layer.tar.size)}")
        else:
            raise OSError("the scheduler is out of reach")


def _caches(action: Action) -> list[Mount]:
    operation = action.operation
    return [mount for mount in operation.mounts if mount.type == "cache"] if isinstance(operation, Run) else []


def _name(cache: SharedCache) -> str:
    return f"the cache mount {cache.title!r}"
