"""ChunkIndex: blobs as sequences of chunks; a chunk of a stored blob is a range of its file, stored once."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING

from blake3 import blake3

from cache import chunks, encoding
from cache.blob_files import INLINE_LIMIT
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.server.limits import PIECE
from cache.server.refusal import invalid, not_found
from cache.server.shelf import alias_record, both_names, ranges_record
from cache.server.wire_digest import size_of
from cache.store import Batch, NewFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache.lmdb_view import View
    from cache.server.shelf import Place, Shelf
    from cache.server.wire_digest import Function
    from cache.store import Table

    _Records = list[tuple[Table, str, bytes]]

LOOSE_SECONDS = 3600
"""A chunk that came this short a time ago was uploaded to be spliced; after that it stays a blob of its own."""


class ChunkIndex:
    """May be used by several threads at once."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._lock = threading.Lock()
        """Held by whoever changes `ranges`."""
        self._cutting = threading.Semaphore(1)
        """One blob at a time: cutting takes a whole core."""

    def split(self, namespace: str, function: Function, name: str) -> list[str]:
        """The chunks of a blob, named under the function, in order; just itself, if it is short.

        Raises Refused: NOT_FOUND.
        """
        place = self._shelf.find_one(namespace, function, name)
        if place.size < chunks.WHOLE or place.holder.size != place.size:
            return [name] if place.size else []
        known = self._known(str(place.holder), function)
        if known is not None:
            return known
        with self._cutting:
            known = self._known(str(place.holder), function)
            if known is not None:
                return known
            self._cut(place.holder, sha256=function == "sha256")
        return self._known(str(place.holder), function) or [name]

    def _known(self, blob: str, function: Function) -> list[str] | None:
        with self._shelf.store.view() as view:
            record = view.get("chunks", blob)
        if record is None:
            return None
        names: list[str] | None = encoding.parse(record).get(function)
        return names

    def _cut(self, blob: Digest, *, sha256: bool) -> None:
        path = self._shelf.store.files.path(blob)
        if not os.path.exists(path):
            raise self._shelf.gone(blob)
        self._remember(str(blob), [(str(c.digest), c.sha256, c.offset) for c in chunks.cut(path, sha256=sha256)])

    def _remember(self, blob: str, parts: Sequence[tuple[str, str, int]]) -> None:
        """parts: (digest, sha256 or "", offset) in order."""
        with self._lock:
            self._shelf.store.commit(Batch(records=tuple(self._records(blob, parts))))

    def _records(self, blob: str, parts: Sequence[tuple[str, str, int]]) -> _Records:
        known = {"blake3": [digest for digest, _, _ in parts]}
        if all(sha256 for _, sha256, _ in parts):
            known["sha256"] = [f"{sha256}/{size_of(digest)}" for digest, sha256, _ in parts]
        records: _Records = [("chunks", blob, encoding.canonical(known))]
        with self._shelf.store.view() as view:
            rows = view.get_multi("ranges", [digest.encode() for digest, _, _ in parts])
        for digest, sha256, offset in {part[0]: part for part in parts}.values():
            if sha256:
                records.append(alias_record(sha256, digest))
            owners = [(str(o), int(at)) for o, at in json.loads(rows.get(digest.encode(), b"[]")) if o != blob]
            records.append(ranges_record(digest, [(blob, offset), *owners]))
        return records

    def splice(
        self, namespace: str, function: Function, name: str, parts: Sequence[str], by: str, *, cdc: bool
    ) -> None:
        """One blob out of chunks, which go as blobs of their own if they came for this. cdc: they were cut as we cut.

        Raises Refused: NOT_FOUND for a chunk, INVALID_ARGUMENT if they are not the blob together.
        """
        shelf = self._shelf
        if sum(map(size_of, parts)) != size_of(name):
            raise invalid(f"the chunks have {sum(map(size_of, parts))} bytes together, the blob has {size_of(name)}")
        places = shelf.find(namespace, function, parts)
        gone = next((part for part in parts if part not in places), None)
        if gone is not None:
            raise not_found(f"the chunk {gone} is missing; upload it, then splice again")
        path = shelf.store.scratch("splice")
        try:
            spliced = _Splice(shelf, path)
            for part in parts:
                spliced.add(places[part])
            digest, sha256 = spliced.finish()
            if name != (f"{sha256}/{digest.size}" if function == "sha256" else str(digest)):
                raise invalid(f"the chunks together are {sha256 if function == 'sha256' else digest.hash}, not {name}")
            if digest.size <= INLINE_LIMIT:
                with open(path, "rb") as file:
                    shelf.put(namespace, [both_names(file.read())], by)
                return
            shelf.put_file(namespace, NewFile(digest, path), sha256, by)
        except OSError as error:
            raise StoreProblem(f"cannot write to the store: {error.strerror}") from None
        finally:
            shelf.store.discard(path)
        if cdc and digest.size >= chunks.WHOLE:
            self._remember(str(digest), spliced.parts)
            self._drop_loose(namespace, {part for part, _, _ in spliced.parts} - {str(digest)}, by)

    def _drop_loose(self, namespace: str, digests: set[str], by: str) -> None:
        """They can be read as ranges of the spliced blob from now on."""
        since = time.time() - LOOSE_SECONDS
        with self._shelf.store.view() as view:
            loose = tuple(self._loose(view, namespace, digests, by, since))
        if loose:
            self._shelf.store.commit(Batch(deleted=loose))

    def _loose(
        self, view: View, namespace: str, digests: set[str], by: str, since: float
    ) -> Iterator[tuple[Table, str]]:
        rows = view.get_multi("members", [f"{namespace}\0{digest}".encode() for digest in digests])
        for raw, row in rows.items():
            _, _, made_at, who = json.loads(row)
            if made_at >= since and who == by:
                yield "members", raw.decode()


class _Splice:
    """Writes chunks one after the other, and hashes the whole and each of them."""

    def __init__(self, shelf: Shelf, path: str) -> None:
        self._shelf = shelf
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115, closed by finish or with this object
        self._sha256 = hashlib.sha256()
        self._blake3 = blake3()
        self._size = 0
        self.parts: list[tuple[str, str, int]] = []
        """(digest, sha256, offset)."""

    def add(self, place: Place) -> None:
        first, second = blake3(), hashlib.sha256()
        for piece in self._pieces(place):
            for each in (first, second, self._blake3, self._sha256):
                each.update(piece)
            self._file.write(piece)
        self.parts.append((f"{first.hexdigest()}/{place.size}", second.hexdigest(), self._size))
        self._size += place.size

    def _pieces(self, place: Place) -> Iterator[bytes]:
        if place.holder.size <= INLINE_LIMIT:
            yield self._shelf.read(place)
            return
        fd = self._shelf.open(place)
        try:
            at, end = place.offset, place.offset + place.size
            while at < end:
                piece = os.pread(fd, min(PIECE, end - at), at)
                if not piece:
                    raise self._shelf.gone(place.holder)
                at += len(piece)
                yield piece
        finally:
            os.close(fd)

    def finish(self) -> tuple[Digest, str]:
        """(BLAKE3, sha256) of the whole, which is durable."""
        os.fsync(self._file.fileno())
        self._file.close()
        return Digest(self._blake3.hexdigest(), self._size), self._sha256.hexdigest()
