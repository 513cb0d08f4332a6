"""LayerLibrary: layers of the store as indexes, root filesystems and open tars, each worked out once a build."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Protocol

from cache import encoding
from cache.digest import Digest
from cache.index import Index
from cache.result import Layer
from cache.rootfs import Rootfs
from cache.store import Batch, NewFile
from worker.tree import RootfsTree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.layer_writer import LayerTar
    from cache.store import Store

FETCHES = 4
"""Layers of one image that are fetched at the same time; more did not make a loopback registry faster on 2 cores."""
ROOTFS_KEPT = 16
"""Root filesystems remembered; chains of steps need their last one, parallel stages one each."""


class Fetcher(Protocol):
    """Brings layers of images into the store."""

    def fetch(self, layer: Layer) -> Layer:
        """The layer with `tar` and `listing`, both in the store. Raises RemoteError, StoreProblem."""
        ...

    def fetched_size(self, layer: Layer) -> int:
        """Bytes that `fetch` would move, 0 if that is not known."""
        ...

    def promised(self, layer: Layer) -> Layer | None:
        """The layer with the names of its tar and listing, if they are known though they are not here."""
        ...

    def index(self, layer: Layer) -> Index | None:
        """What the layer says, if that can be had without its bytes."""
        ...


class LayerLibrary:
    """All methods may be called from several threads."""

    def __init__(self, store: Store, fetcher: Fetcher) -> None:
        self.store = store
        self._fetcher = fetcher
        self._lock = threading.Lock()
        self._indexes: dict[str, Index] = {}
        self._layers: dict[str, Layer] = {}
        self._fetching: dict[str, threading.Lock] = {}
        self._rootfs: dict[tuple[str, ...], Rootfs] = {}
        self._tars: dict[str, int] = {}

    def known(self, layer: Layer) -> Layer:
        """The layer with as much as the store knows of its tar and listing, without fetching anything."""
        with self._lock:
            found = self._layers.get(layer.diff_id, layer)
        if found.listing is None or found.tar is None:
            record = self.store.get("layers", layer.diff_id)
            if record is not None:
                # A damaged record is as good as none: the layer is fetched again, or made.
                with contextlib.suppress(*encoding.UNREADABLE):
                    found = Layer.from_json(encoding.parse(record))._replace(content=layer.content)
                    with self._lock:
                        self._layers[layer.diff_id] = found
            else:
                found = self._fetcher.promised(layer) or found
        return found

    def fetch(self, layer: Layer) -> Layer:
        """The layer with its tar and listing in the store. Raises RemoteError."""
        with self._lock:
            lock = self._fetching.setdefault(layer.diff_id, threading.Lock())
        with lock:
            known = self.known(layer)
            if not (self._is_here(known.tar) and self._is_here(known.listing)):
                known = self._fetcher.fetch(layer)._replace(content=layer.content)
                with self._lock:
                    self._layers[layer.diff_id] = known
            return known

    def _is_here(self, blob: Digest | None) -> bool:
        return blob is not None and self.store.has_blob(blob)

    def is_listed(self, layer: Layer) -> bool:
        """Whether `index` needs no bytes of the layer."""
        return self._is_here(self.known(layer).listing) or self._fetcher.promised(layer) is not None

    def forget(self, diff_id: str) -> None:
        """Whatever was believed of a layer that is not here."""
        with self._lock:
            for known in (self._layers, self._indexes):
                known.pop(diff_id, None)
            for key in [key for key in self._rootfs if diff_id in key]:
                del self._rootfs[key]

    def release(self, diff_id: str) -> None:
        """Let go of a layer that no step uses any more, so that it can be removed."""
        self.forget(diff_id)
        with self._lock:
            fd = self._tars.pop(diff_id, None)
        if fd is not None:
            os.close(fd)

    def shed(self, entries: int) -> None:
        """Forget indexes, those that were used least lately first, until not more entries are remembered; what is
        needed again is read again. For processes that live long."""
        with self._lock:
            excess = sum(len(index.entries) for index in self._indexes.values()) - entries
            if excess > 0:
                self._rootfs.clear()
            while excess > 0:
                diff_id = next(iter(self._indexes))
                excess -= len(self._indexes.pop(diff_id).entries)
                self._layers.pop(diff_id, None)

    def bytes_to_fetch(self, layer: Layer) -> int:
        """Bytes that come from elsewhere before the layer can be used; 0 for one that is here."""
        return 0 if self._is_here(self.known(layer).tar) else self._fetcher.fetched_size(layer)

    def fetch_all(self, layers: Sequence[Layer]) -> list[Layer]:
        """`fetch` for each, several at a time."""
        missing = [layer for layer in layers if not self._is_here(self.known(layer).tar)]
        if len(missing) < 2:
            return [self.fetch(layer) for layer in layers]
        from concurrent.futures import ThreadPoolExecutor  # 10 ms, with logging, that a build with nothing to do saves

        with ThreadPoolExecutor(FETCHES, "fetch") as pool:
            return list(pool.map(self.fetch, layers))

    def index(self, layer: Layer) -> Index:
        """What the layer says. Raises RemoteError, StoreProblem."""
        with self._lock:
            found = self._indexes.pop(layer.diff_id, None)
            if found is not None:
                self._indexes[layer.diff_id] = found  # as the one that was used last
        if found is None:
            listing = self.known(layer).listing
            if not self._is_here(listing):
                found = self._fetcher.index(layer)
            if found is None:
                listing = listing if self._is_here(listing) else self.fetch(layer).listing
                assert listing is not None
                found = Index.decode(self.store.read_blob(listing))
            with self._lock:
                self._indexes[layer.diff_id] = found
        return found

    def remember(self, layer: Layer, index: Index) -> None:
        """Note a layer that was just made, so that nobody decodes its index again."""
        with self._lock:
            self._indexes[layer.diff_id] = index
            self._layers[layer.diff_id] = layer

    def rootfs(self, layers: Sequence[Layer]) -> Rootfs:
        """The merged view of layers, lowest first."""
        key = tuple(layer.diff_id for layer in layers)
        with self._lock:
            found = self._rootfs.get(key)
        if found is None:
            indexes: list[Index] = []
            for layer in layers:
                index = self.index(layer)
                # A foreign layer may leave out its parent directories, and remove what is not there: overlayfs
                # needs both settled. Layers of ours are captured from an overlay, or planned as one.
                foreign = layer.content == layer.diff_id
                indexes.append(index.rebased(Rootfs(indexes)) if foreign else index)
            found = Rootfs(indexes)
            with self._lock:
                while len(self._rootfs) >= ROOTFS_KEPT:
                    del self._rootfs[next(iter(self._rootfs))]
                self._rootfs[key] = found
        return found

    def tree(self, layers: Sequence[Layer]) -> RootfsTree:
        """The merged view of layers with their files' bytes, which are fetched when the first one is read."""
        return RootfsTree(self.rootfs(layers), lambda number: self.open_tar(layers[number]))

    def tar_path(self, layer: Layer) -> str:
        """A file that holds the layer's tar for as long as this process runs."""
        tar = self.fetch(layer).tar
        assert tar is not None
        return self.store.blob_path(tar)

    def open_tar(self, layer: Layer) -> int:
        """A descriptor of the layer's tar; it stays open, and is only for reading at offsets."""
        with self._lock:
            fd = self._tars.get(layer.diff_id)
        if fd is None:
            opened = os.open(self.tar_path(layer), os.O_RDONLY | os.O_CLOEXEC)
            with self._lock:
                fd = self._tars.setdefault(layer.diff_id, opened)
            if fd != opened:
                os.close(opened)
        return fd

    def write_layer(self, write: Callable[[int], LayerTar]) -> tuple[Layer, Batch]:
        """Have a layer of ours written to a scratch file; the layer, and the batch that makes it durable."""
        path = self.store.scratch("tar")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            made = write(fd)
        except BaseException:
            os.unlink(path)  # a worker lives too long to keep what came to nothing
            raise
        finally:
            os.close(fd)
        encoded = made.index.encode()
        listing = Digest.of(encoded)
        layer = Layer(str(made.diff_id), made.index.content(), made.blob, listing)
        batch = Batch(
            blobs={listing: encoded},
            files=(NewFile(made.blob, path),),
            records=(("layers", layer.diff_id, encoding.canonical(layer.to_json())),),
        )
        self.remember(layer, made.index)
        return layer, batch
