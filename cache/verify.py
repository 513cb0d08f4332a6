"""Verify: reads everything in a store again, says what is wrong, and on demand drops it: a build makes it anew."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from cache import encoding
from cache.blob_files import INLINE_LIMIT
from cache.build_record import BuildRecord
from cache.condemned import Reclaimed, condemn_unnamed, reclaim
from cache.digest import Digest
from cache.errors import BuildgraphError
from cache.evict import Order, note_eviction, trim_notes
from cache.index import Index
from cache.names import read_name
from cache.naming import blobs_in
from cache.prune import find_orphans
from cache.readers import sweep_readers
from cache.recipe import Recipe
from cache.result import Layer, Result
from cache.run_dir import sweep
from cache.store import TABLES, Batch
from cache.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.lmdb_store import LmdbStore
    from cache.lmdb_view import View
    from cache.store import Table

CHUNK = 1 << 20
DAMAGED = "damaged, dropped by cache verify --repair"
"""Why a result went that was not what it said."""


class Problem(NamedTuple):
    """text: one line. records: to be dropped. blob: its hash, to be dropped, "" for none. stray: a path below
    `blobs/`, "" for none. inline: bytes of the blob if it is a small one."""

    text: str
    records: tuple[tuple[Table, str], ...] = ()
    blob: str = ""
    stray: str = ""
    inline: int = 0


class Verified(NamedTuple):
    """blobs, bytes, records: how many were read. orphans: bytes of blobs that no record names, now condemned. swept:
    scratch directories of dead builds. reclaimed: what came back, with what was dropped at once."""

    problems: tuple[Problem, ...]
    blobs: int
    bytes: int
    records: int
    orphans: int
    swept: int
    reclaimed: Reclaimed


def verify(
    store: LmdbStore, *, repair: bool = False, tell: Callable[[int, int], None] = lambda _done, _all: None
) -> Verified:
    """tell: called with bytes of files read so far, and of all. Raises StoreProblem."""
    store.commit(Batch())
    swept = sweep(store.directory)
    sweep_readers(store.directory)
    with store.view() as view:
        verification = _Verification(store, view, tell)
        verification.read_blobs()
        verification.read_records()
        verification.read_images()
    problems = verification.problems
    dropped = _repair(store, problems) if repair and problems else 0
    orphans = find_orphans(store)
    with store.transaction() as view:
        waiting = condemn_unnamed(view, orphans)
    reclaimed = reclaim(store)
    return Verified(
        tuple(problems), verification.blobs, verification.bytes, verification.records, waiting, swept,
        reclaimed._replace(bytes=reclaimed.bytes + dropped),
    )  # fmt: skip


def _repair(store: LmdbStore, problems: list[Problem]) -> int:
    """Drop the blobs at once, whoever reads them: what they say is wrong. Bytes that came back by that."""
    left: set[str] = set()
    freed = 0
    now = time.time()
    with store.transaction() as view:
        for problem in problems:
            for table, key in problem.records:
                value = view.get(table, key)
                view.delete(table, key)
                if value is not None:
                    left.update(blobs_in(table, value))
                if table == "results":
                    # The content that it told is not to be trusted: no later run is compared with it.
                    note_eviction(view, key, now, Order(DAMAGED, len(value or b"")), "")
            if problem.blob:
                freed += problem.inline if view.delete_blob(problem.blob) else 0
                freed += store.files.remove(problem.blob)
            if problem.stray:
                freed += _unlink(os.path.join(store.files.directory, problem.stray))
        condemn_unnamed(view, left)
        trim_notes(view)
    return freed


def _unlink(path: str) -> int:
    """Bytes that it had on disk; what is no file stays."""
    if not (os.path.isfile(path) or os.path.islink(path)):
        return 0
    size = os.lstat(path).st_blocks * 512
    os.unlink(path)
    return size


class _Verification:
    def __init__(self, store: LmdbStore, view: View, tell: Callable[[int, int], None]) -> None:
        self._store = store
        self._view = view
        self._tell = tell
        self.problems: list[Problem] = []
        self.blobs = self.bytes = self.records = 0
        self._there: dict[str, int] = {}
        """Hash → size of the blobs that say what their names say."""
        self._sha256: dict[str, str] = {}
        self._bad: set[str] = set()
        self._listings: dict[str, str | None] = {}
        self._layers: set[str] = set()

    def read_blobs(self) -> None:
        """Hash every blob."""
        for hash_, data in self._view.blobs():
            self._note_blob(hash_, blake3(data).hexdigest(), len(data), small=True)
        tars = self._tars()
        files, total = self._files()
        done = 0
        for hash_, size in files:
            try:
                found, sha256 = _hash(self._store.files.path_of(hash_), sha256=hash_ in tars)
            except FileNotFoundError:
                continue  # out of everybody's reach, and reclaimed by a clean-up meanwhile
            except OSError as error:
                self._bad.add(hash_)
                self.problems.append(Problem(f"blob {hash_[:16]} cannot be read: {error.strerror}", blob=hash_))
                continue
            if hash_ in tars:
                self._sha256[hash_] = sha256
            self._note_blob(hash_, found, size, small=False)
            done += size
            self._tell(done, total)

    def _files(self) -> tuple[list[tuple[str, int]], int]:
        files, total = [], 0
        for name, is_blob in self._store.files.scan():
            if not is_blob:
                self.problems.append(Problem(f"blobs/{name} is no blob: something else put it there", stray=name))
                continue
            try:
                size = os.path.getsize(os.path.join(self._store.files.directory, name))
            except FileNotFoundError:
                continue
            files.append((name.replace("/", ""), size))
            total += size
        return files, total

    def _note_blob(self, name: str, found: str, size: int, *, small: bool) -> None:
        self.blobs += 1
        self.bytes += size
        if found == name:
            self._there[name] = size
        else:
            self._bad.add(name)
            what = "a small blob" if small else "a file"
            text = f"blob {name[:16]} ({what}, {size} bytes) does not have the bytes that its name says"
            self.problems.append(Problem(text, blob=name, inline=size if small else 0))

    def _tars(self) -> set[str]:
        """Hashes of blobs that are layers: their sha256 is wanted, too."""
        found = set()
        for _, record in self._view.scan("layers"):
            try:
                layer = Layer.from_json(encoding.parse(record))
            except encoding.UNREADABLE:
                continue
            if layer.tar is not None:
                found.add(layer.tar.hash)
        for _, record in self._view.scan("results"):
            result = Result.parse(record)
            if result is not None and result.layer is not None and result.layer.tar is not None:
                found.add(result.layer.tar.hash)
        return found

    def read_records(self) -> None:
        """Parse every record; those that name blobs name only ones that are there."""
        for table in TABLES:
            for key, record in self._view.scan(table):
                self.records += 1
                reason = self._wrong(table, key, record)
                if reason:
                    self.problems.append(Problem(f"{table} {_short(key)}: {reason}", ((table, key),)))
                elif table == "layers":
                    self._layers.add(key)

    def _wrong(self, table: Table, key: str, record: bytes) -> str:
        """What is wrong with a record, "" for nothing."""
        try:
            layer = _parse(table, key, record)
        except encoding.UNREADABLE as error:
            return f"it cannot be read: {error}"
        for text in blobs_in(table, record):
            reason = self._wrong_blob(Digest.parse(text))
            if reason:
                return reason
        return "" if layer is None else self._wrong_layer(layer)

    def _wrong_blob(self, digest: Digest) -> str:
        size = self._there.get(digest.hash)
        if size is None:
            what = "is damaged" if digest.hash in self._bad else "is gone"
            return f"the blob {digest.hash[:16]} that it names {what}"
        return f"it says that the blob {digest.hash[:16]} has another size" if size != digest.size else ""

    def _wrong_layer(self, layer: Layer) -> str:
        if layer.tar is not None:
            sha256 = self._sha256.get(layer.tar.hash)
            if sha256 is None:
                data = self._view.blob(layer.tar) if layer.tar.size <= INLINE_LIMIT else None
                if data is not None:
                    sha256 = hashlib.sha256(data).hexdigest()
            if sha256 is not None and f"sha256:{sha256}" != layer.diff_id:
                return "the sha256 of its tar is another"
        if layer.listing is not None:
            if layer.listing.hash not in self._listings:
                self._listings[layer.listing.hash] = self._content(layer.listing)
            content = self._listings[layer.listing.hash]
            if content is None:
                return "its listing cannot be read"
            if layer.content not in (content, layer.diff_id):
                return "its listing says something else than the layer"
        return ""

    def _content(self, listing: Digest) -> str | None:
        try:
            return Index.decode(self._store.read_blob(listing)).content()
        except BuildgraphError:
            return None

    def read_images(self) -> None:
        """Images that were built here have all layers that were made here."""
        for key, record in self._view.scan("names"):
            image = read_name(key, record, self._view, self._file)
            if image is None:
                if not any(("names", key) in problem.records for problem in self.problems):
                    text = f"names {_short(key)}: its config cannot be read"
                    self.problems.append(Problem(text, (("names", key),)))
            elif not image.pulled:
                ours = [diff_id for diff_id, content in image.layers if diff_id != content]
                missing = [diff_id for diff_id in ours if diff_id not in self._layers and not self._promised(diff_id)]
                if missing:
                    text = f"names {_short(key)}: its layer {missing[0][:23]} is gone or damaged"
                    self.problems.append(Problem(text, (("names", key),)))

    def _promised(self, diff_id: str) -> bool:
        """Whether a cache server has the layer, which was never here."""
        return self._view.get("promised", f"layer:{diff_id}") is not None

    def _file(self, digest: Digest) -> bytes | None:
        try:
            return self._store.read_blob(digest)
        except BuildgraphError:
            return None


def _parse(table: Table, key: str, record: bytes) -> Layer | None:
    """Raises one of `encoding.UNREADABLE`; the layer that the record says, if it says one."""
    if table == "results":
        return Result.from_json(encoding.parse(record)).layer
    if table in ("layers", "outputs"):
        # Behind the layer of an output may stand when it was made.
        return Layer.from_json(encoding.parse(record)[: len(Layer._fields)])
    if table == "builds":
        if BuildRecord.parse(key, record) is None:
            raise ValueError("it is no record of a build that this program knows")
    elif table == "uses":
        if Usage.parse(record) == Usage():
            raise ValueError("it is no record of a use")
    elif table == "names":
        value = encoding.parse(record)
        if not isinstance(value["contents"], list) or not isinstance(value["pulled"], bool):
            raise ValueError("it is no record of an image")
        Digest.parse(value["config"])
    elif table in ("forms", "evictions"):
        encoding.parse(record)
    elif table == "condemned":
        Digest.parse(key)
    elif table == "recipes" and Recipe.parse(record) is None:
        raise ValueError("it is no key")
    return None


def _hash(path: str, *, sha256: bool) -> tuple[str, str]:
    """(BLAKE3, sha256 or "") of a file. Raises OSError."""
    first = blake3()
    if not sha256:
        if os.path.getsize(path):
            first.update_mmap(path)
        return first.hexdigest(), ""
    second = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            first.update(chunk)
            second.update(chunk)
    return first.hexdigest(), second.hexdigest()


def _short(key: str) -> str:
    return key if len(key) <= 60 else f"{key[:57]}…"
