"""Stocktaking: makes an Inventory, in one pass over the records and one over the directories."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from cache import encoding
from cache.blob_files import INLINE_LIMIT
from cache.build_record import BuildRecord
from cache.digest import Digest
from cache.disk_usage import TookTooLong, tree_bytes
from cache.inventory import Blobs, Inventory, Item
from cache.names import named_images
from cache.naming import CLAMP, blobs_in, layer_in
from cache.prepared import list_prepared
from cache.result import Layer, Result
from cache.stored_mounts import list_mounts
from cache.usage import Usage, layer_key, project_names, result_key

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from cache.lmdb_view import View

FETCH_SECONDS = 1.0
FETCH_RATE = 20e6
"""What is fetched again takes so long and so many bytes a second: a registry over a good line."""
MOUNT_RATE = 5e6
"""What fills a cache mount downloads and unpacks or compiles."""
PREPARE_RATE = 100e6
RECORD_BYTES = 400
"""Of a result's smaller records: recipe, use, layer."""
_CHECK_EVERY = 1000
_DIRECTORIES = ("leases", "readers")


def take_inventory(store: LmdbStore, *, deadline: float | None = None, titles: bool = True) -> Inventory:
    """Go through all that is committed. deadline: as `time.monotonic`. Raises StoreProblem, TookTooLong."""
    with store.view() as view:
        return _Stocktaking(store, view, deadline).take(titles=titles)


class _Stocktaking:
    def __init__(self, store: LmdbStore, view: View, deadline: float | None) -> None:
        self._store = store
        self._view = view
        self._deadline = deadline
        disk = os.statvfs(store.directory)
        self._blobs = Blobs(disk.f_frsize)
        self._items: list[Item] = []
        self._covered: set[bytes] = set()
        self._images: dict[str, tuple[str, ...]] = {}
        self._titles: dict[str, str] = {}
        self._same: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._named: set[str] = set()
        self._projects = project_names(view)

    def take(self, *, titles: bool) -> Inventory:
        self._read_names()
        self._read_builds(titles)
        self._read_results()
        self._read_fetches()
        self._read_outputs()
        self._read_layers()
        directory = self._store.directory
        self._items += list_mounts(directory, self._deadline, lambda size: 1.0 + size / MOUNT_RATE)
        self._items += list_prepared(directory, self._deadline, lambda size: 0.02 + size / PREPARE_RATE)
        return self._sum_up()

    def _read_names(self) -> None:
        needed: dict[str, list[str]] = {}
        for image in named_images(self._view, self._store.files.read):
            if image.pulled:
                uses = [self._usage(layer_key(diff_id)) for diff_id, _ in image.layers]
                last = max([int(image.made_at), *(use.last for use in uses)])
                count = max((use.builds for use in uses), default=0)
                self._items.append(
                    Item(f"image:{image.key}", "base", self._blobs.hold(image.config), 200, last, count,
                         FETCH_SECONDS, title=image.name)
                )  # fmt: skip
            else:
                self._named.add(image.config)
                for diff_id, _ in image.layers:
                    names = needed.setdefault(diff_id, [])
                    if image.name not in names:
                        names.append(image.name)
        self._images = {diff_id: self._shared(names) for diff_id, names in needed.items()}

    def _read_builds(self, titles: bool) -> None:
        for key, record in self._view.scan("builds"):
            self._named.update(blobs_in("builds", record))
            build = BuildRecord.parse(key, record) if titles else None
            for node in () if build is None else build.nodes:
                if node.content:
                    self._titles[node.content] = node.title

    def _read_results(self) -> None:
        for number, (content, record) in enumerate(self._view.scan("results")):
            self._hurry(number)
            result = Result.parse(record)
            if result is None:
                continue  # `verify` tells
            layer, log = result.layer, None if result.log is None else str(result.log)
            blobs = self._blobs.hold(*_of_layer(layer), log)
            use = self._usage(result_key(content))
            images = () if layer is None else self._images.get(layer.diff_id, ())
            if layer is not None:
                self._cover(layer.diff_id)
            self._items.append(
                Item(result_key(content), "step", blobs, len(record) + RECORD_BYTES,
                     use.last or int(result.made_at), use.builds, result.seconds, use.projects, images, log or "",
                     self._titles.get(content, ""))
            )  # fmt: skip

    def _read_fetches(self) -> None:
        for key, record in self._view.scan("fetches"):
            named = blobs_in("fetches", record)
            diff_id = layer_in(record)
            if diff_id:
                self._cover(diff_id)
            if named:
                blobs = self._blobs.hold(*named)
                size = sum(self._blobs.sizes[blob] for blob in blobs)
                images = self._images.get(diff_id, ())
                seconds = FETCH_SECONDS + size / FETCH_RATE
                self._items.append(
                    Item(f"fetch:{key}", "fetch", blobs, len(record), self._made_at(named), 1, seconds,
                         images=images, title=key.partition(" ")[0])
                )  # fmt: skip

    def _read_outputs(self) -> None:
        """Of the layers here only those rewritten for SOURCE_DATE_EPOCH are no result's."""
        for key, record in self._view.scan("outputs", CLAMP):
            diff_id = layer_in(record)
            self._cover(diff_id)
            self._items.append(
                Item(f"output:{key}", "step", self._blobs.hold(*blobs_in("outputs", record)), len(record),
                     images=self._images.get(diff_id, ()), title="rewritten for SOURCE_DATE_EPOCH")
            )  # fmt: skip

    def _read_layers(self) -> None:
        for diff_id, record in self._view.scan("layers"):
            try:
                layer = Layer.from_json(encoding.parse(record))
            except encoding.UNREADABLE:
                continue
            foreign = layer.content == layer.diff_id
            if foreign or not self._is_covered(diff_id):
                blobs = self._blobs.hold(*_of_layer(layer))
                size = sum(self._blobs.sizes[blob] for blob in blobs)
                use = self._usage(layer_key(diff_id))
                self._items.append(
                    Item(layer_key(diff_id), "base" if foreign else "step", blobs, len(record), use.last, use.builds,
                         FETCH_SECONDS + size / FETCH_RATE if foreign else 0.0, use.projects,
                         self._images.get(diff_id, ()), title="a layer of an image" if foreign else "an unnamed layer")
                )  # fmt: skip

    def _sum_up(self) -> Inventory:
        files = self._store.files
        unused = overhead = 0
        named = {text.partition("/")[0] for text in self._named}
        for name, is_blob in files.scan():
            hash_ = name.replace("/", "")
            if not is_blob or (hash_ not in self._blobs and hash_ not in named):
                with contextlib.suppress(OSError):
                    unused += os.lstat(os.path.join(files.directory, name)).st_blocks * 512
        condemned = (Digest.parse(key) for key, _ in self._view.scan("condemned"))
        condemned_inline = sum(digest.size for digest in condemned if digest.size <= INLINE_LIMIT)
        overhead += _directory_bytes(self._store.directory)
        database = _disk(os.path.join(self._store.directory, "data.mdb"))
        in_use = min(self._view.pages_in_use(), database)
        # Of built images' configs and failed steps' logs; a rare one is a file.
        large = [Digest.parse(text).size for text in self._named]
        records = in_use - self._blobs.inline - condemned_inline
        records += sum(self._blobs.on_disk(size) for size in large if size > INLINE_LIMIT)
        records -= sum(item.own for item in self._items if item.kind not in ("mount", "prepared"))
        return Inventory(
            self._items, self._blobs.sizes, self._blobs.holders, max(0, records), unused + condemned_inline,
            overhead, tree_bytes(os.path.join(self._store.directory, "runs"), linked=False), max(0, database - in_use),
        )  # fmt: skip

    def _usage(self, key: str) -> Usage:
        use = Usage.parse(self._view.get("uses", key))
        return use._replace(projects=self._shared([self._projects.get(each, each) for each in use.projects]))

    def _made_at(self, named: list[str]) -> int:
        """When the largest of the blobs came; now, if all of them are too small to have a file."""
        largest = max(map(Digest.parse, named), key=lambda digest: digest.size)
        try:
            return int(os.lstat(self._store.files.path(largest)).st_mtime)
        except OSError:
            return int(time.time())

    def _shared(self, names: list[str]) -> tuple[str, ...]:
        """One tuple for all items that have the same names."""
        found = tuple(names)
        return self._same.setdefault(found, found)

    def _cover(self, diff_id: str) -> None:
        with contextlib.suppress(ValueError):
            self._covered.add(bytes.fromhex(diff_id[7:]))

    def _is_covered(self, diff_id: str) -> bool:
        try:
            return bytes.fromhex(diff_id[7:]) in self._covered
        except ValueError:
            return False

    def _hurry(self, number: int) -> None:
        if self._deadline is not None and number % _CHECK_EVERY == 0 and time.monotonic() > self._deadline:
            raise TookTooLong("going through the store took too long")


def _of_layer(layer: Layer | None) -> tuple[str, ...]:
    return () if layer is None else tuple(str(blob) for blob in (layer.tar, layer.listing) if blob is not None)


def _directory_bytes(store: str) -> int:
    """Of what is neither blob nor database nor mount nor scratch: directories themselves, locks."""
    total = _disk(store) + sum(tree_bytes(os.path.join(store, name)) for name in _DIRECTORIES)
    for name in ("blobs", "mounts", "snapshots"):
        path = os.path.join(store, name)
        if os.path.isdir(path):
            total += _disk(path)
            with os.scandir(path) as listing:
                # Of mounts the sidecars and locks; what stands in a mount is that one's.
                mine = [item.path for item in listing if name == "blobs" or not item.is_dir(follow_symlinks=False)]
            total += sum(map(_disk, mine))
    with os.scandir(store) as listing:
        files = [item.path for item in listing if item.name != "data.mdb" and item.is_file(follow_symlinks=False)]
    total += sum(map(_disk, files))
    return total


def _disk(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0
