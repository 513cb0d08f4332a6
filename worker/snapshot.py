"""Snapshots: a layer as something that overlayfs can mount: an EROFS image over its tar, or a plain directory."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol

from cache import erofs
from cache.digest import Digest
from cache.entry import BLOCK, CHARACTER, FILE, Entry
from cache.errors import EnvironmentProblem
from cache.index import Index
from cache.run_dir import remove_tree
from cache.store import SNAPSHOTS
from worker.extract import extract

if TYPE_CHECKING:
    from cache.result import Layer
    from worker.library import LayerLibrary

HARMLESS_DEVICES = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})
"""null, zero, full, random, urandom, tty, console, ptmx: what every container has in its own /dev. The system call
filter lets a step make the same."""
KEPT_FROM = 2000
"""Entries from which an EROFS image is kept for later builds; a smaller one takes less than 20 ms to make."""


class Snapshotter(Protocol):
    """Threads may call `lower` at the same time."""

    name: str

    def lower(self, layer: Layer, index: Index) -> dict[str, str]:
        """What the keeper mounts for this layer. index: the layer's own, or as it stands rebased on those below."""
        ...

    def paths(self, diff_id: str) -> list[str]:
        """Files or directories that were prepared of a layer, also by earlier processes as far as that is known."""
        ...

    def forget(self, diff_id: str) -> None:
        """Whatever was prepared of the layer is about to be removed; no step uses it."""
        ...


class ErofsSnapshots:
    """Nothing is extracted: an image of the names points into the layer's tar (kernel 6.12 or newer, root)."""

    name = "erofs"

    def __init__(self, library: LayerLibrary, directory: str) -> None:
        self._library = library
        self._directory = directory
        self._made: dict[str, dict[str, str]] = {}
        self._of = _Prepared()
        self._locks = _Locks()

    def lower(self, layer: Layer, index: Index) -> dict[str, str]:
        index = without_devices(index)
        key = _key(layer, index, self._library)
        with self._locks.of(key):
            if key not in self._made:
                tar = self._library.tar_path(layer)
                keep = len(index.entries) >= KEPT_FROM
                path = os.path.join(self._directory, f"{key}.erofs") if keep else self._library.store.scratch("erofs")
                if not keep or not os.path.exists(path):
                    _write(path, erofs.build(index, os.path.getsize(tar)), self._library.store.scratch("erofs"))
                self._made[key] = {"image": path, "tar": tar}
                self._of.add(layer.diff_id, key, path)
            return self._made[key]

    def paths(self, diff_id: str) -> list[str]:
        return self._of.paths(diff_id, os.path.join(self._directory, f"{_plain(diff_id)}.erofs"))

    def forget(self, diff_id: str) -> None:
        for key in self._of.pop(diff_id):
            self._made.pop(key, None)


class DirectorySnapshots:
    """Each layer extracted once into a directory: for older kernels and for ordinary users."""

    name = "dirs"

    def __init__(self, library: LayerLibrary, directory: str, *, rootless: bool) -> None:
        self._library = library
        self._rootless = rootless
        self._directory = os.path.join(directory, "user" if rootless else "root")
        self._of = _Prepared()
        self._locks = _Locks()

    def lower(self, layer: Layer, index: Index) -> dict[str, str]:
        index = without_devices(index)
        key = _key(layer, index, self._library)
        path = os.path.join(self._directory, key)
        with self._locks.of(key):
            if not os.path.isdir(path):
                self._extract(layer, index, path)
        self._of.add(layer.diff_id, key, path)
        return {"directory": path}

    def paths(self, diff_id: str) -> list[str]:
        return self._of.paths(diff_id, os.path.join(self._directory, _plain(diff_id)))

    def forget(self, diff_id: str) -> None:
        self._of.pop(diff_id)

    def _extract(self, layer: Layer, index: Index, path: str) -> None:
        fresh = self._library.store.scratch("extract")
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            os.mkdir(fresh, 0o755)
            tar = self._library.open_tar(layer)
            extract(index, tar, fresh, userxattr=self._rootless, devices=not self._rootless)
            os.rename(fresh, path)
        except OSError as error:
            if os.path.isdir(path):
                remove_tree(fresh)  # another build was faster
                return
            raise EnvironmentProblem(f"cannot extract a layer: {error.strerror}") from None


def without_devices(index: Index) -> Index:
    """The index as steps may see it: an empty file in place of every device node but the harmless ones.

    Docker has a device cgroup between a step and the disks; without one, a node that exists can be opened. Images keep
    their nodes: only what is mounted for steps changes.
    """
    if not any(_is_dangerous(entry) for entry in index.entries):
        return index
    return Index(map(_disarmed, index.entries), index.small)


def _is_dangerous(entry: Entry) -> bool:
    return entry.kind == BLOCK or (entry.kind == CHARACTER and (entry.major, entry.minor) not in HARMLESS_DEVICES)


def _disarmed(entry: Entry) -> Entry:
    if not _is_dangerous(entry):
        return entry
    return Entry(entry.path, FILE, entry.mode, entry.uid, entry.gid, entry.mtime, digest=Digest.of(b"").hash)


def snapshot_directory(store: str) -> str:
    """Where snapshots are kept until the machine restarts: they are not synced, so a power cut may have torn them."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    directory = os.path.join(store, SNAPSHOTS, boot)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name in os.listdir(os.path.join(store, SNAPSHOTS)):
            if name != boot:
                remove_tree(os.path.join(store, SNAPSHOTS, name))
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to the store {store}: {error.strerror}") from None
    return directory


class _Prepared:
    """What was made of each layer: more than one thing if it lies on others in several images."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, dict[str, str]] = {}

    def add(self, diff_id: str, key: str, path: str) -> None:
        with self._lock:
            self._of.setdefault(diff_id, {})[key] = path

    def paths(self, diff_id: str, plain: str) -> list[str]:
        """plain: where it would be if it lies on nothing that matters."""
        with self._lock:
            known = list(self._of.get(diff_id, {}).values())
        return known if plain in known or not os.path.lexists(plain) else [*known, plain]

    def pop(self, diff_id: str) -> list[str]:
        """The keys."""
        with self._lock:
            return list(self._of.pop(diff_id, {}))


class _Locks:
    """One lock a key, so that a layer is prepared once while others go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def of(self, key: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())


def _key(layer: Layer, index: Index, library: LayerLibrary) -> str:
    plain = library.index(layer)
    if index is plain:
        # The whole diff_id: times count in a mounted layer.
        return _plain(layer.diff_id)
    return Digest.of(index.encode()).hash


def _plain(diff_id: str) -> str:
    return diff_id.removeprefix("sha256:")


def _write(path: str, data: bytes, fresh: str) -> None:
    try:
        with open(fresh, "wb") as file:
            file.write(data)
        os.rename(fresh, path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write a layer's index: {error.strerror}") from None
