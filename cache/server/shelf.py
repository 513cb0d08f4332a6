"""Shelf: the blobs of every namespace, under either digest function."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.blob_files import INLINE_LIMIT
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.server.hold import Hold
from cache.server.namespaces import Namespaces
from cache.server.refusal import Refused, not_found
from cache.server.uses import Uses
from cache.server.wire_digest import EMPTY, size_of
from cache.store import Batch, NewFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cache.lmdb_store import LmdbStore
    from cache.lmdb_view import View
    from cache.server.access import Caller
    from cache.server.wire_digest import Function
    from cache.store import Table

MAX_OWNERS = 8
"""Blobs that a chunk is noted as a part of; more would not make it last longer by much."""
NOBODY = ""
"""Who put what was taken over from another namespace."""
EMPTY_DIGEST = Digest.of(b"")


class Place(NamedTuple):
    """Where the bytes of a blob are: in a blob of the store, its own or one that it is a part of."""

    holder: Digest
    offset: int
    size: int


class NewBlob(NamedTuple):
    """A small blob that is to be stored. sha256: 64 hex digits."""

    digest: Digest
    sha256: str
    data: bytes


class Shelf:
    """All methods may be called by several threads at once. Names of blobs are `HASH/SIZE` under a function.

    A blob *belongs* to a namespace if it has a record in `members` there; it is *visible* if it belongs there or is a
    chunk of one that does. Bytes were verified under both functions before they come here.
    """

    def __init__(self, store: LmdbStore, room: Callable[[str, int, int], Hold] = lambda *_: Hold()) -> None:
        """room: asked before so many blobs, so many bytes are taken over into a namespace; may refuse."""
        self._room = room
        self.store = store
        self.namespaces = Namespaces(store)
        self.uses = Uses()

    # finding

    def missing(
        self, namespace: str, function: Function, names: Sequence[str], caller: Caller | None = None
    ) -> list[str]:
        """Those that are not visible, in order. caller: who may write here; then blobs of other namespaces that they
        may read are taken over and are not missing, if the namespace has room for them."""
        with self.store.view() as view:
            digests = self._digests(view, function, names)
            members = self._members(view, namespace, digests.values())
            if len(members) == len(digests):
                absent = [name for name in names if name not in digests]
            else:
                absent = [name for name in names if digests.get(name, "") not in members]
            if not absent:
                return []
            found: set[str] = {EMPTY[function]}
            blobs = {name: digests[name] for name in absent if name in digests}
            if blobs:
                found.update(name for name, place in self._ranges(view, namespace, blobs).items() if place)
            linked: dict[str, str] = {}
            if caller is not None:
                linked = self._elsewhere(view, namespace, blobs.keys() - found, digests, caller)
        if linked and self._link(namespace, set(linked.values())):
            found.update(linked)
        return [name for name in absent if name not in found]

    def find(self, namespace: str, function: Function, names: Iterable[str]) -> dict[str, Place]:
        """Where those are that are visible."""
        names = list(names)
        with self.store.view() as view:
            digests = self._digests(view, function, names)
            members = self._members(view, namespace, digests.values())
            found = {name: _whole(digest) for name, digest in digests.items() if digest in members}
            if EMPTY[function] in names:
                found[EMPTY[function]] = Place(EMPTY_DIGEST, 0, 0)
            blobs = {name: digest for name, digest in digests.items() if name not in found}
            if blobs:
                found.update((name, place) for name, place in self._ranges(view, namespace, blobs).items() if place)
        return found

    def find_one(self, namespace: str, function: Function, name: str) -> Place:
        """Raises Refused: NOT_FOUND."""
        place = self.find(namespace, function, (name,)).get(name)
        if place is None:
            where = f"namespace {namespace!r}" if namespace else "the default namespace"
            raise not_found(f"{where} has no blob {name}; ask FindMissingBlobs, and upload it again")
        return place

    def members(self, view: View, namespace: str, digests: Iterable[str]) -> set[str]:
        """Those of the blobs, named by BLAKE3, that belong to the namespace."""
        return self._members(view, namespace, digests)

    def _digests(self, view: View, function: Function, names: Iterable[str]) -> Mapping[str, str]:
        """Name under the function → under BLAKE3, of those that are known."""
        if function == "blake3":
            return {name: name for name in names}
        rows = view.get_multi("aliases", _keys("", names))
        return dict(zip(_texts("", rows), _texts("", rows.values()), strict=True))

    def _members(self, view: View, namespace: str, digests: Iterable[str]) -> set[str]:
        start = f"{namespace}\0"
        found = set(_texts(start, view.get_multi("members", _keys(start, digests))))
        self.uses.touch(namespace, found)
        return found

    def _ranges(self, view: View, namespace: str, blobs: Mapping[str, str]) -> dict[str, Place | None]:
        """Name → where it is a part of a blob that belongs to the namespace. blobs: name → digest."""
        owners = self._owners(view, blobs)
        members = self._members(view, namespace, {owner for each in owners.values() for owner, _ in each})
        found: dict[str, Place | None] = {}
        for name, digest in blobs.items():
            owner = next((each for each in owners.get(digest, ()) if each[0] in members), None)
            found[name] = None if owner is None else Place(Digest.parse(owner[0]), int(owner[1]), size_of(name))
        return found

    def _owners(self, view: View, blobs: Mapping[str, str]) -> dict[str, list[tuple[str, int]]]:
        """Chunk → the blobs that it is a part of, and where. blobs: name → digest."""
        rows = view.get_multi("ranges", _keys("", blobs.values()))
        return {raw.decode(): json.loads(row) for raw, row in rows.items()}

    def _elsewhere(
        self, view: View, namespace: str, names: Iterable[str], digests: Mapping[str, str], caller: Caller
    ) -> dict[str, str]:
        """Name → digest of the blob to take over, of those that another namespace has that the caller may read: the
        blob itself, or one that it is a chunk of."""
        left = {name: digests[name] for name in names}
        others = self.namespaces.linkable(namespace, caller) if left else ()
        if not others:
            return {}
        owners = self._owners(view, left)
        found: dict[str, str] = {}
        for other in others:
            wanted = {*left.values(), *(owner for name in left for owner, _ in owners.get(left[name], ()))}
            members = self._members(view, other, wanted)
            if not members:
                continue
            self.namespaces.used(other)
            for name, digest in left.items():
                holders = (digest, *(owner for owner, _ in owners.get(digest, ())))
                holder = next((each for each in holders if each in members), None)
                if holder is not None:
                    found[name] = holder
            left = {name: digest for name, digest in left.items() if name not in found}
            if not left:
                break
        return found

    def _link(self, namespace: str, digests: set[str]) -> bool:
        """Whether there was room; whoever uploads them instead is told why not. Nobody put them here.

        Raises StoreProblem if a clean-up was faster.
        """
        now = int(time.time())
        records = tuple(member_record(namespace, digest, NOBODY, now) for digest in digests)
        try:
            hold = self._room(namespace, len(digests), sum(map(size_of, digests)))
        except Refused:
            return False
        with hold:
            self.store.commit(Batch(records=records, needs=tuple(map(Digest.parse, digests))))
        self.namespaces.add(namespace)
        return True

    # reading

    def read(self, place: Place) -> bytes:
        """All of it; for small ones. Raises Refused: NOT_FOUND."""
        if place.holder.size <= INLINE_LIMIT:
            if not place.holder.size:
                return b""
            with self.store.view() as view:
                data = view.blob(place.holder)
            if data is None:
                raise self.gone(place.holder)
            return data[place.offset : place.offset + place.size]
        fd = self.open(place)
        try:
            return os.pread(fd, place.size, place.offset)
        finally:
            os.close(fd)

    def read_many(self, places: Mapping[str, Place]) -> dict[str, bytes]:
        """Small ones by their names; those that are gone are left out."""
        inline = {place.holder.hash for place in places.values() if place.holder.size <= INLINE_LIMIT}
        with self.store.view() as view:
            data = view.blob_multi(inline)
        found: dict[str, bytes] = {}
        for name, place in places.items():
            if place.holder.size > INLINE_LIMIT or not place.holder.size:
                with contextlib.suppress(Refused):
                    found[name] = self.read(place)
            elif place.holder.hash in data:
                whole = data[place.holder.hash]
                found[name] = whole if place.size == len(whole) else whole[place.offset : place.offset + place.size]
        return found

    def open(self, place: Place) -> int:
        """A descriptor of the file of a large blob; what is open stays whole whoever removes it.

        Raises Refused: NOT_FOUND.
        """
        try:
            return os.open(self.store.files.path(place.holder), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self.gone(place.holder) from None
        except OSError as error:
            raise StoreProblem(f"cannot read blob {place.holder}: {error.strerror}") from None

    def gone(self, digest: Digest) -> Exception:
        return not_found(f"the blob {digest} is damaged or gone from the server; upload it again")

    # writing

    def put(self, namespace: str, blobs: Iterable[NewBlob], by: str) -> None:
        """Small blobs that belong to the namespace from now on; durable on return. Raises StoreProblem."""
        now = int(time.time())
        records: list[tuple[Table, str, bytes]] = []
        data: dict[Digest, bytes] = {}
        start, end = f"{namespace}\0", f'",{now},{now},{json.dumps(by)}]'  # once: there may be 1,000 blobs
        for blob in blobs:
            size = f"/{blob.digest.size}"
            text = blob.digest.hash + size
            data[blob.digest] = blob.data
            records.append(("aliases", blob.sha256 + size, f'"{text}"'.encode()))
            records.append(("members", start + text, f'["{text}{end}'.encode()))
        self.store.commit(Batch(blobs=data, records=tuple(records)))
        self.namespaces.add(namespace)

    def put_file(self, namespace: str, file: NewFile, sha256: str, by: str) -> None:
        """The same for a finished and synced file of the store's scratch space, which is used up."""
        text = str(file.digest)
        records = (alias_record(sha256, text), member_record(namespace, text, by, int(time.time())))
        try:
            self.store.commit(Batch(files=(file,), records=records))
        finally:
            self.store.discard(file.path, file.digest)
        self.namespaces.add(namespace)

    def settle(self, namespace: str, function: Function, names: Sequence[str], by: str) -> tuple[str, ...]:
        """Make visible blobs ones that belong to the namespace, since a record will name them; by BLAKE3.

        Only a chunk of another blob does not yet, and is stored once more. Raises Refused: NOT_FOUND.
        """
        places = self.find(namespace, function, names)
        with self.store.view() as view:
            digests = self._digests(view, function, names)
        for name in names:
            place = places.get(name)
            if place is None:
                raise not_found(f"the blob {name} has just gone; upload it again")
            if str(place.holder) != digests[name]:
                data = self.read(place)
                self.put(namespace, [both_names(data)], by)
        return tuple(digests[name] for name in names)


def _keys(start: str, names: Iterable[str]) -> list[bytes]:
    """Each name behind the start, as LMDB wants keys. All in one piece: there may be 10,000 of them."""
    joined = f"\n{start}".join(names)
    return (start + joined).encode().split(b"\n") if joined else []


def _texts(start: str, raws: Iterable[bytes]) -> list[str]:
    """The reverse; also of names as JSON strings."""
    joined = b"\n".join(raws).replace(b'"', b"").decode()
    if not joined:
        return []
    return joined.removeprefix(start).replace(f"\n{start}", "\n").split("\n") if start else joined.split("\n")


def _whole(digest: str) -> Place:
    parsed = Digest(digest[:64], size_of(digest))
    return Place(parsed, 0, parsed.size)


def member_record(namespace: str, digest: str, by: str, now: int) -> tuple[Table, str, bytes]:
    """[blob, last use, made at, who put it]."""
    return "members", f"{namespace}\0{digest}", f'["{digest}",{now},{now},{json.dumps(by)}]'.encode()


def alias_record(sha256: str, digest: str) -> tuple[Table, str, bytes]:
    return "aliases", f"{sha256}/{size_of(digest)}", f'"{digest}"'.encode()


def both_names(data: bytes) -> NewBlob:
    return NewBlob(Digest.of(data), hashlib.sha256(data).hexdigest(), data)


def ranges_record(chunk: str, owners: Sequence[tuple[str, int]]) -> tuple[Table, str, bytes]:
    return "ranges", chunk, encoding.canonical([list(owner) for owner in owners[:MAX_OWNERS]])
