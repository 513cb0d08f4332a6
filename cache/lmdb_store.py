"""The local store: LMDB for records and small blobs, one file each for large blobs, one writer that groups commits."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING

import lmdb

from cache import data_file
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.lease import sweep_leases
from cache.run_dir import RunDirectory, remove_tree, sweep
from cache.store import TABLES, Batch, Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

FORMAT = b"1"
"""Version of the layout; a store of another version is refused, never converted in place."""
MAP_SIZE = 1 << 38
"""Address space for LMDB, 256 GiB; the file only grows as it is used."""
INLINE_LIMIT = 32 << 10
"""Blobs up to this many bytes live in LMDB: one commit instead of a file, its fsync and its directory's."""
GROUP_LIMIT = 1000
"""Batches in one transaction at most, so that a flood of puts does not hold back the first ones for long."""
MAX_KEY = 500
"""LMDB's own limit is 511 bytes. Of longer keys, such as deep paths of a context, the beginning and a hash are the key,
together one byte longer than any other key, and the whole key stands before the value."""
LONG_PREFIX = MAX_KEY + 1 - 64
NO_SPACE = 1 << 20
"""A failed write with fewer free bytes than this failed for lack of space."""
PROBE = 64 << 20
_BLOBS = "blobs"
_DELETED = object()


class LmdbStore:
    """A `Store` in one directory. Several processes may use the same one."""

    def __init__(self, directory: str) -> None:
        """Open or create. Raises StoreProblem with what to do."""
        self.directory = os.path.abspath(directory)
        try:
            os.makedirs(os.path.join(self.directory, _BLOBS), mode=0o700, exist_ok=True)
            data_file.check(self.directory, self._read_all)
            self._env = _open(self.directory)
            self._open_tables()
        except (OSError, lmdb.Error) as error:
            raise StoreProblem(
                f"cannot open the store {self.directory}: {_reason(error)}",
                hint="choose another directory with --store or BUILDGRAPH_STORE",
            ) from None
        self._lock = threading.Condition()
        self._queue: list[tuple[Batch, Future[None]]] = []
        self._pending: dict[tuple[str, str], bytes | object] = {}
        self._pending_blobs: dict[Digest, bytes | str] = {}
        self._files: dict[Digest, str] = {}
        self._writer: threading.Thread | None = None
        self._closing = False
        self._failure: StoreProblem | None = None
        self._run: RunDirectory | None = None
        self._counter = 0

    def _read_all(self) -> None:
        """Touch every page that is in use; for the list of free ones, look for more of them than there are."""
        with _open(self.directory) as env, env.begin(write=True) as txn:
            for name in (*TABLES, _BLOBS):
                with contextlib.suppress(lmdb.NotFoundError):
                    for _, value in txn.cursor(env.open_db(name.encode(), txn, create=False)):
                        bytes(value)
            txn.put(b"probe", bytes(PROBE))
            txn.abort()

    def _open_tables(self) -> None:
        names = [*TABLES, _BLOBS]
        with self._env.begin(buffers=False) as txn:
            meta = txn.get(b"format")
        if meta is None:
            self._env.open_db(b"meta", create=True)
            with self._env.begin(write=True) as txn:
                txn.put(b"format", FORMAT, overwrite=False)
                meta = txn.get(b"format")
        if meta != FORMAT:
            raise OSError(0, f"it has layout version {meta!r}, this program knows {FORMAT!r}")
        self._dbs = {name: self._env.open_db(name.encode(), create=True) for name in names}

    # reading

    def get(self, table: Table, key: str) -> bytes | None:
        return self.get_many(table, (key,)).get(key)

    def get_many(self, table: Table, keys: Iterable[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self._lock:
            pending = {key: self._pending.get((table, key)) for key in keys}
        with self._env.begin(db=self._dbs[table]) as txn:
            for key, value in pending.items():
                if value is None:
                    raw = _key(key)
                    stored = txn.get(raw)
                    value = None if stored is None else _unpack(raw, stored)[1]
                if isinstance(value, bytes):
                    found[key] = value
        return found

    def scan(self, table: Table, prefix: str = "") -> list[tuple[str, bytes]]:
        found: dict[str, bytes | object] = {}
        start = prefix.encode("utf-8", "surrogateescape")[:LONG_PREFIX]
        # First what waits to be written: between the two it may move from there into the database, never back.
        with self._lock:
            pending = {key: value for (of, key), value in self._pending.items() if of == table}
        with self._env.begin(db=self._dbs[table]) as txn:
            cursor = txn.cursor()
            if cursor.set_range(start):
                for raw, value in cursor.iternext():
                    if not bytes(raw).startswith(start):
                        break
                    key, found_value = _unpack(bytes(raw), bytes(value))
                    found[key] = found_value
        found.update(pending)
        return sorted((k, v) for k, v in found.items() if isinstance(v, bytes) and k.startswith(prefix))

    def has_blob(self, digest: Digest) -> bool:
        with self._lock:
            if digest in self._pending_blobs:
                return True
        if digest.size <= INLINE_LIMIT:
            with self._env.begin(db=self._dbs[_BLOBS]) as txn:
                return txn.get(digest.hash.encode()) is not None
        return os.path.exists(self._path(digest))

    def read_blob(self, digest: Digest) -> bytes:
        with self._lock:
            pending = self._pending_blobs.get(digest)
        if isinstance(pending, bytes):
            return pending
        if pending is None and digest.size <= INLINE_LIMIT:
            with self._env.begin(db=self._dbs[_BLOBS]) as txn:
                value = txn.get(digest.hash.encode())
            if value is None:
                raise StoreProblem(f"the store has no blob {digest}")
            return bytes(value)
        try:
            with open(pending if isinstance(pending, str) else self._path(digest), "rb") as file:
                return file.read()
        except FileNotFoundError:
            if pending is not None:
                return self.read_blob(digest)  # it has just been moved to its place
            raise StoreProblem(f"the store has no blob {digest}") from None
        except OSError as error:
            raise StoreProblem(f"cannot read blob {digest}: {error.strerror}") from None

    def blob_path(self, digest: Digest) -> str:
        with self._lock:
            mine = self._files.get(digest)
        if mine is not None and os.path.exists(mine):
            return mine
        path = self._path(digest)
        if os.path.exists(path):
            return path
        if digest.size > INLINE_LIMIT and not self.has_blob(digest):
            raise StoreProblem(f"the store has no blob {digest}")
        data = self.read_blob(digest)
        copy = self.scratch(f"blob-{digest.hash}", unique=False)
        if not os.path.exists(copy):
            try:
                with open(f"{copy}.{threading.get_ident()}", "wb") as file:
                    file.write(data)
                os.rename(file.name, copy)
            except OSError as error:
                raise StoreProblem(f"cannot write to the store {self.directory}: {error.strerror}") from None
        return copy

    def scratch(self, name: str, *, unique: bool = True) -> str:
        with self._lock:
            if self._run is None:
                try:
                    self._run = RunDirectory(self.directory)
                    sweep(self.directory)
                    sweep_leases(self.directory)
                except OSError as error:
                    raise StoreProblem(f"cannot write to the store {self.directory}: {error.strerror}") from None
            self._counter += 1
            return os.path.join(self._run.path, f"{name}-{self._counter}" if unique else name)

    def _path(self, digest: Digest) -> str:
        return os.path.join(self.directory, _BLOBS, digest.hash[:2], digest.hash[2:])

    # writing

    def commit(self, batch: Batch) -> None:
        future = self.submit(batch)
        if self._writer is None:
            self._write_queued()
        future.result()

    def submit(self, batch: Batch) -> Future[None]:
        from concurrent.futures import Future  # 7 ms that a build with nothing to do need not pay

        future: Future[None] = Future()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            for digest, data in batch.blobs.items():
                self._pending_blobs[digest] = data
            for file in batch.files:
                self._pending_blobs[file.digest] = self._files[file.digest] = file.path
            for table, key, value in batch.records:
                self._pending[table, key] = value
            for table, key in batch.deleted:
                self._pending[table, key] = _DELETED
            self._queue.append((batch, future))
            self._lock.notify_all()
        return future

    def start_writer(self) -> None:
        """Have a thread write what is submitted, beside the build. Until then it waits for `commit` or `close`.

        A process that has threads should not fork any more; so the build says when.
        """
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
            self._writer.start()

    def _write_loop(self) -> None:
        while True:
            with self._lock:
                while not self._queue:
                    if self._closing:
                        return
                    self._lock.wait()
            self._write_queued()

    def _write_queued(self) -> None:
        """Write what is queued, a group at a time."""
        while True:
            with self._lock:
                group, self._queue = self._queue[:GROUP_LIMIT], self._queue[GROUP_LIMIT:]
            if not group:
                return
            failure: StoreProblem | None = None
            try:
                self._write([batch for batch, _ in group])
            except StoreProblem as error:
                failure = error
            except (OSError, lmdb.Error) as error:
                failure = StoreProblem(
                    f"cannot write to the store {self.directory}: {self._write_reason(error)}",
                    hint="free some space, or choose another directory with --store",
                )
            with self._lock:
                if failure is not None:
                    self._failure = failure
                queued = [batch for batch, _ in self._queue]
                for batch, _ in group:
                    self._forget(batch, queued)
                self._lock.notify_all()
            for _, future in group:
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)

    def _write_reason(self, error: Exception) -> str:
        # LMDB calls a write that was cut short, as the last one on a full disk is, an input/output error.
        if isinstance(error, lmdb.Error):
            with contextlib.suppress(OSError):
                disk = os.statvfs(self.directory)
                if disk.f_bavail * disk.f_frsize < NO_SPACE:
                    return os.strerror(errno.ENOSPC)
        return _reason(error)

    def _forget(self, batch: Batch, queued: list[Batch]) -> None:
        """Take what is committed out of the pending view, unless a later batch says it anew."""
        again = {(table, key) for later in queued for table, key, _ in later.records}
        again |= {pair for later in queued for pair in later.deleted}
        for table, key, _ in batch.records:
            if (table, key) not in again:
                self._pending.pop((table, key), None)
        for pair in batch.deleted:
            if pair not in again:
                self._pending.pop(pair, None)
        for digest in (*batch.blobs, *(file.digest for file in batch.files)):
            self._pending_blobs.pop(digest, None)

    def _write(self, batches: list[Batch]) -> None:
        """Files first, then one transaction: a record is never seen without its blobs (I3)."""
        directories = set()
        small: dict[Digest, bytes] = {}
        for batch in batches:
            for digest, data in batch.blobs.items():
                if digest.size <= INLINE_LIMIT:
                    small[digest] = data
                else:
                    directories.add(self._place(digest, self._spill(digest, data)))
            for file in batch.files:
                if file.digest.size <= INLINE_LIMIT:
                    with open(file.path, "rb") as opened:
                        small[file.digest] = opened.read()
                else:
                    directories.add(self._place(file.digest, file.path))
        for directory in sorted(directories - {""}):
            _sync(directory)
        with self._env.begin(write=True) as txn:
            for digest, data in small.items():
                txn.put(digest.hash.encode(), data, db=self._dbs[_BLOBS], overwrite=False)
            for batch in batches:
                for table, key, value in batch.records:
                    txn.put(_key(key), _packed(key, value), db=self._dbs[table])
                for table, key in batch.deleted:
                    txn.delete(_key(key), db=self._dbs[table])

    def _spill(self, digest: Digest, data: bytes) -> str:
        path = self.scratch(f"blob-{digest.hash}")
        with open(path, "wb") as file:
            file.write(data)
        return path

    def _place(self, digest: Digest, path: str) -> str:
        """Make a finished file durable under its blob's name; the directory that must be synced, or ""."""
        final = self._path(digest)
        if os.path.exists(final):
            return ""
        _sync(path)
        directory = os.path.dirname(final)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        # A link, not a rename: whoever still reads the scratch file keeps a valid name.
        try:
            os.link(path, final)
        except FileExistsError:
            return ""
        os.chmod(final, 0o400)
        return directory

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._writer is not None:
            self._writer.join()
        else:
            self._write_queued()
        if self._run is not None:
            self._run.remove()
            self._run = None
        self._env.close()
        if self._failure is not None:
            raise self._failure

    def discard(self, path: str) -> None:
        """Delete something below `scratch` early; harmless if it is gone."""
        if os.path.lexists(path):
            remove_tree(path)


def _open(directory: str) -> lmdb.Environment:
    return lmdb.open(directory, map_size=MAP_SIZE, max_dbs=len(TABLES) + 2, mode=0o600, max_readers=1024, metasync=True)


def _key(key: str) -> bytes:
    raw = key.encode("utf-8", "surrogateescape")
    return raw if len(raw) <= MAX_KEY else raw[:LONG_PREFIX] + Digest.of(raw).hash.encode()


def _packed(key: str, value: bytes) -> bytes:
    """The value as it is stored: behind the key's length and the key, if that is a long one."""
    raw = key.encode("utf-8", "surrogateescape")
    return value if len(raw) <= MAX_KEY else len(raw).to_bytes(4, "big") + raw + value


def _unpack(raw: bytes, value: bytes) -> tuple[str, bytes]:
    """The key and value that were stored."""
    if len(raw) > MAX_KEY:
        size = int.from_bytes(value[:4], "big")
        raw, value = value[4 : 4 + size], value[4 + size :]
    return raw.decode("utf-8", "surrogateescape"), value


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _reason(error: Exception) -> str:
    if isinstance(error, lmdb.MapFullError):
        return "it is full"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)

