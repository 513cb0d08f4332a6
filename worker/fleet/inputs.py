"""Inputs: gets the layers that a lease needs, from the store or from the namespace that the lease is of."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from cache.disk_usage import free_bytes
from cache.errors import CorruptLayer, EnvironmentProblem
from cache.promises import Names, Origin, Promise
from cache.remote.layer_fetch import fetch_layer
from cache.remote.reading import BlobReader
from cache.remote.trouble import Missing
from cache.result import Layer, Result
from cache.size_text import bytes_text
from cache.store import Batch
from worker.action import Cancelled
from worker.fleet.key_check import check_key
from worker.fleet.visible import first_absent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cache.lmdb_store import LmdbStore
    from cache.remote.client import Client
    from cache.remote.local_chunks import LocalChunks
    from cache.remote.reading import Traffic
    from worker.action import Action
    from worker.fleet.action_body import Body
    from worker.fleet.hot_layers import HotLayers
    from worker.fleet.remotes import Remotes
    from worker.library import LayerLibrary

FETCHES = 4
"""Layers of one lease that are fetched at the same time."""
MIN_FREE = 64 << 20
"""Bytes of the disk that stay free beside what is fetched: a store that runs into a full disk is of no use any more."""
SEEN = 100_000
"""Pairs of namespace and layer that are known to belong together."""


class Inputs:
    """May be used by several threads at once. What whoever wants an action says of a layer is only a question: what the
    store has of it was verified when it came, and it is used only if the lease's namespace has it, too."""

    def __init__(self, store: LmdbStore, library: LayerLibrary, hot: HotLayers, remotes: Remotes) -> None:
        self._store = store
        self._library = library
        self._hot = hot
        self._remotes = remotes
        self._lock = threading.Lock()
        self._fetching: dict[str, tuple[threading.Lock, int]] = {}
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def prepare(self, namespace: str, action: Action, cancelled: Callable[[], bool]) -> Action:
        """The action with layers that are all in the store. Hold them before. Raises what `bring` does."""
        lists = _lists(action)
        found = iter(self.bring(namespace, [layer for given in lists for layer in given], cancelled))
        return action._replace(inputs=tuple(tuple(itertools.islice(found, len(given))) for given in lists))

    def check_key(self, body: Body, prepared: Action) -> None:
        """That the key is the one of what is to be executed. Raises CorruptBlob, StoreProblem."""
        check_key(body, _lists(prepared), self._library)

    def bring(self, namespace: str, layers: Sequence[Layer], cancelled: Callable[[], bool]) -> list[Layer]:
        """The same layers, in the store. Hold them before.

        Raises RemoteError, CorruptBlob, CorruptLayer, EnvironmentProblem, Cancelled.
        """
        wanted = {layer.diff_id: layer for layer in layers}
        known = {diff_id: self._known(layer) for diff_id, layer in wanted.items()}
        self._check_namespace(namespace, [layer for layer in known.values() if layer is not None])
        self._fetch_all(namespace, [layer for diff_id, layer in wanted.items() if known[diff_id] is None], cancelled)
        found = list(map(self._found, layers))
        self._hot.add({layer.diff_id: layer for layer in found}.values())
        return found

    def made(self, namespace: str, layer: Layer) -> None:
        """A layer that was made here belongs to the namespace that it is published in."""
        self._note(namespace, layer)

    def _known(self, layer: Layer) -> Layer | None:
        """As the store has it."""
        known = self._hot.has(layer.diff_id)
        blobs = () if known is None else (known.tar, known.listing)
        there = bool(blobs) and all(blob is not None and self._store.has_blob(blob) for blob in blobs)
        return known if there else None

    def _found(self, said: Layer) -> Layer:
        """The layer of the store, with the content that is said, if that is its own."""
        known = self._hot.has(said.diff_id)
        if known is None or known.tar != said.tar:
            raise CorruptLayer(f"the layer {said.diff_id} is said to be another one than it is")
        if said.content not in (known.diff_id, known.content) and said.content != self._library.index(known).content():
            raise CorruptLayer(f"the layer {said.diff_id} is said to have another content than it has")
        return known._replace(content=said.content)

    # from elsewhere

    def _check_namespace(self, namespace: str, layers: Sequence[Layer]) -> None:
        """Raises Missing for a layer that is here, but is none of this namespace's. layers: as the store has them: with
        a layer of its own under another one's name somebody could make that one count as seen."""
        with self._lock:
            layers = [layer for layer in layers if (namespace, layer.diff_id) not in self._seen]
        if not layers:
            return
        self._check_there(namespace, {str(layer.tar): layer for layer in layers})
        for layer in layers:
            self._note(namespace, layer)

    def _check_there(self, namespace: str, names: Mapping[str, Layer]) -> None:
        """Raises Missing for the layer of a blob that the server does not show in the namespace."""
        absent = first_absent(self._remotes.of(namespace).client, namespace, names)
        if absent is not None:
            raise Missing(f"the server has no layer {names[absent].diff_id} in this namespace")

    def _note(self, namespace: str, layer: Layer) -> None:
        with self._lock:
            self._seen[namespace, layer.diff_id] = None
            self._seen.move_to_end((namespace, layer.diff_id))
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)

    def _fetch_all(self, namespace: str, layers: Sequence[Layer], cancelled: Callable[[], bool]) -> None:
        blobs = {blob: layer for layer in layers for blob in (layer.tar, layer.listing) if blob is not None}
        # First, and not when it is fetched: a size is part of a blob's name, and no layer goes for a size that is only
        # said.
        self._check_there(namespace, {str(blob): layer for blob, layer in blobs.items()})
        self.check_disk(sum(blob.size for blob in blobs))
        if len(layers) < 2:
            for layer in layers:
                self._fetch(namespace, layer, cancelled)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(FETCHES, "fetch") as pool:
            for done in [pool.submit(self._fetch, namespace, layer, cancelled) for layer in layers]:
                done.result()

    def check_disk(self, size: int) -> None:
        """Raises EnvironmentProblem if so many bytes are too many, also if nothing were kept that no step uses; then
        all that is kept stays."""
        directory = self._store.directory
        short = size + MIN_FREE - free_bytes(directory)
        if short > 0:
            self._hot.make_room(short)
            free = free_bytes(directory)
            if free < size + MIN_FREE:
                text = f"its disk is full: {bytes_text(size)} have to be fetched, and {bytes_text(free)} are free"
                raise EnvironmentProblem(text)

    def _fetch(self, namespace: str, layer: Layer, cancelled: Callable[[], bool]) -> None:
        with self._turn(layer.diff_id):
            known = self._known(layer)
            if known is None:
                self._fetch_now(namespace, layer, cancelled)
                return
        self._check_namespace(namespace, [known])  # another lease was faster

    def _turn(self, diff_id: str) -> _Turn:
        return _Turn(self._lock, self._fetching, diff_id)

    def _fetch_now(self, namespace: str, layer: Layer, cancelled: Callable[[], bool]) -> None:
        remote = self._remotes.of(namespace)
        origin = Origin(remote.client.settings.origin, namespace, "blake3")
        names = Names(str(layer.tar), str(layer.listing), "")
        reader = _Reader(remote.client, self._remotes.traffic, cancelled)
        known, index = fetch_layer(
            self._store, reader, self._remotes.chunks, Promise(Result(layer, None, 0.0, 0.0, ""), origin, names)
        )
        self._store.commit(Batch())  # a full disk shows now, and not when the step has run
        self._library.remember(known, index)
        self._hot.add([known])
        self._note(namespace, known)


class _Turn:
    """One thread at a time for one layer; nothing is left of it afterwards."""

    def __init__(self, lock: threading.Lock, turns: dict[str, tuple[threading.Lock, int]], name: str) -> None:
        self._lock = lock
        self._turns = turns
        self._name = name

    def __enter__(self) -> None:
        with self._lock:
            turn, count = self._turns.get(self._name, (threading.Lock(), 0))
            self._turns[self._name] = turn, count + 1
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            turn, count = self._turns[self._name]
            if count == 1:
                del self._turns[self._name]
            else:
                self._turns[self._name] = turn, count - 1
        turn.release()


class _Reader(BlobReader):
    """Stops reading a large blob when nobody wants it any more."""

    def __init__(self, client: Client, traffic: Traffic, cancelled: Callable[[], bool]) -> None:
        super().__init__(client, traffic)
        self._cancelled = cancelled

    def pieces(self, namespace: str, name: str, chunks: LocalChunks) -> tuple[Iterator[bytes], list[str]]:
        found, parts = super().pieces(namespace, name, chunks)

        def checked() -> Iterator[bytes]:
            for piece in found:
                if self._cancelled():
                    raise Cancelled
                yield piece

        return checked(), parts


def _lists(action: Action) -> list[tuple[Layer, ...]]:
    found: list[Any] = list(action.inputs)
    return found
