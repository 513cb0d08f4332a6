"""View: the records and small blobs of a store as one LMDB transaction sees them, and how keys are written there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from cache.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import lmdb

    from cache.store import Table

BLOBS = "blobs"
MAX_KEY = 500
"""LMDB's own limit is 511 bytes. Of longer keys, such as deep paths of a context, the beginning and a hash are the key,
together one byte longer than any other key, and the whole key stands before the value."""
LONG_PREFIX = MAX_KEY + 1 - 64
_WRITTEN = b"written"
_MEASURED = b"measured"


class Measured(NamedTuple):
    """The last inventory. used: bytes in use. written: the count of bytes ever written at that time. at: seconds since
    the epoch."""

    used: int
    written: int
    at: int


class View:
    """One transaction. Reading is for one thread at a time; writing only in a view that `LmdbStore.transaction` gives.

    id: number of the last transaction that a reading view sees, or of the writing one itself; it only grows.
    """

    def __init__(self, txn: lmdb.Transaction, dbs: Mapping[str, lmdb._Database]) -> None:
        self._txn = txn
        self._dbs = dbs
        self.id: int = txn.id()

    def get(self, table: Table, key: str) -> bytes | None:
        raw = raw_key(key)
        value = self._txn.get(raw, db=self._dbs[table])
        return None if value is None else unpack(raw, bytes(value))[1]

    def count(self, table: Table) -> int:
        return int(self._txn.stat(self._dbs[table])["entries"])

    def scan(self, table: Table, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """All records whose key starts with the prefix, in the order of their keys, one at a time.

        Do not write to the table meanwhile.
        """
        start = prefix.encode("utf-8", "surrogateescape")[:LONG_PREFIX]
        cursor = self._txn.cursor(self._dbs[table])
        if not cursor.set_range(start):
            return
        for raw, value in cursor.iternext():
            if bytes(raw[: len(start)]) != start:
                return
            key, found = unpack(bytes(raw), bytes(value))
            if key.startswith(prefix):
                yield key, found

    def get_multi(self, table: Table, raw: list[bytes]) -> dict[bytes, bytes]:
        """Those of the records that exist. Keys as `raw_key` gives them, none longer than MAX_KEY: 0.5 µs each."""
        # Bytes, says a transaction without buffers; its stubs do not know.
        return dict(cast("list[tuple[bytes, bytes]]", self._txn.cursor(self._dbs[table]).getmulti(raw)))

    def blob_multi(self, hashes: Iterable[str]) -> dict[str, bytes]:
        """Those of the small blobs that exist."""
        keys = [hash_.encode() for hash_ in hashes]
        found = cast("list[tuple[bytes, bytes]]", self._txn.cursor(self._dbs[BLOBS]).getmulti(keys))
        return {raw.decode(): value for raw, value in found}

    def key_from(self, table: Table, key: str) -> str | None:
        """The first key that is not less than this one; None if all are."""
        cursor = self._txn.cursor(self._dbs[table])
        if not cursor.set_range(raw_key(key)):
            return None
        return unpack(bytes(cursor.key()), bytes(cursor.value()))[0]

    def scan_back(self, table: Table, prefix: str) -> Iterator[tuple[str, bytes]]:
        """As `scan`, the last one first. prefix: short, and the keys below it, too."""
        start = raw_key(prefix)
        cursor = self._txn.cursor(self._dbs[table])
        # Beyond the prefix and all that begin with it: no key has the byte 255, which UTF-8 does not know.
        if not (cursor.prev() if cursor.set_range(start + b"\xff") else cursor.last()):
            return
        for raw, value in cursor.iterprev():
            if bytes(raw[: len(start)]) != start:
                return
            yield unpack(bytes(raw), bytes(value))

    def blob(self, digest: Digest) -> bytes | None:
        """A small blob."""
        value = self._txn.get(digest.hash.encode(), db=self._dbs[BLOBS])
        return None if value is None else bytes(value)

    def blobs(self) -> Iterator[tuple[str, bytes]]:
        """Every small blob with its hash."""
        for raw, value in self._txn.cursor(self._dbs[BLOBS]).iternext():
            yield bytes(raw).decode("ascii", "replace"), bytes(value)

    def blob_sizes(self) -> Iterator[tuple[str, int]]:
        """Hash and size of every small blob."""
        for raw, value in self._txn.cursor(self._dbs[BLOBS]).iternext():
            yield bytes(raw).decode("ascii", "replace"), len(value)

    def pages_in_use(self) -> int:
        """Bytes of the database's pages that hold something."""
        stats = [self._txn.stat(db) for db in self._dbs.values()]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int((pages + 3) * stats[0]["psize"])  # two meta pages and the table of tables

    # writing

    def put(self, table: Table, key: str, value: bytes) -> None:
        raw = key.encode("utf-8", "surrogateescape")
        if len(raw) > MAX_KEY:
            raw, value = raw_key(key), packed(key, value)
        self._txn.put(raw, value, db=self._dbs[table])

    def delete(self, table: Table, key: str) -> bool:
        """Whether it was there."""
        return bool(self._txn.delete(raw_key(key), db=self._dbs[table]))

    def put_blob(self, digest: Digest, data: bytes) -> None:
        self._txn.put(digest.hash.encode(), data, db=self._dbs[BLOBS], overwrite=False)

    def delete_blob(self, hash_: str) -> bool:
        """Remove a small blob; whether it was there."""
        return bool(self._txn.delete(hash_.encode("ascii", "replace"), db=self._dbs[BLOBS]))

    # how much was written

    def written(self) -> int:
        """Bytes of blobs and records that were ever written to this store."""
        value = self._txn.get(_WRITTEN)
        return 0 if value is None else int(bytes(value))

    def add_written(self, size: int) -> None:
        self._txn.put(_WRITTEN, str(self.written() + size).encode())

    def measured(self) -> Measured | None:
        """What the last inventory found; None if there was none."""
        value = self._txn.get(_MEASURED)
        try:
            return None if value is None else Measured(*map(int, bytes(value).split()))
        except (ValueError, TypeError):
            return None

    def set_measured(self, used: int, at: float) -> None:
        self._txn.put(_MEASURED, f"{used} {self.written()} {int(at)}".encode())


def raw_key(key: str) -> bytes:
    """The key as LMDB has it."""
    raw = key.encode("utf-8", "surrogateescape")
    return raw if len(raw) <= MAX_KEY else raw[:LONG_PREFIX] + Digest.of(raw).hash.encode()


def packed(key: str, value: bytes) -> bytes:
    """The value as it is stored: behind the key's length and the key, if that is a long one."""
    raw = key.encode("utf-8", "surrogateescape")
    return value if len(raw) <= MAX_KEY else len(raw).to_bytes(4, "big") + raw + value


def unpack(raw: bytes, value: bytes) -> tuple[str, bytes]:
    """The key and value that were stored."""
    if len(raw) > MAX_KEY:
        size = int.from_bytes(value[:4], "big")
        raw, value = value[4 : 4 + size], value[4 + size :]
    return raw.decode("utf-8", "surrogateescape"), value
