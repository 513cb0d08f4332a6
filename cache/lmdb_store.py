"""The local store: LMDB for records and small blobs, one file each for large blobs, one writer that groups commits."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from itertools import chain
from typing import TYPE_CHECKING

import lmdb

from cache import condemned, data_file
from cache.blob_files import INLINE_LIMIT, BlobFiles
from cache.disk_usage import free_bytes
from cache.errors import StoreProblem
from cache.lease import sweep_leases
from cache.lmdb_view import BLOBS, View
from cache.naming import blobs_in
from cache.readers import Reader
from cache.run_dir import RunDirectory, remove_tree, sweep
from cache.store import TABLES, Batch, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from cache.digest import Digest

FORMAT = b"1"
"""Version of the layout; a store of another version is refused, never converted in place."""
MAP_SIZE = 1 << 38
"""Address space for LMDB, 256 GiB; the file only grows as it is used."""
GROUP_LIMIT = 1000
"""Batches in one transaction at most, so that a flood of puts does not hold back the first ones for long."""
NO_SPACE = 1 << 20
"""A failed write with fewer free bytes than this failed for lack of space."""
PROBE = 64 << 20
_DELETED = object()


class LmdbStore:
    """A `Store` in one directory. Several processes may use the same one."""

    def __init__(self, directory: str) -> None:
        """Open or create. Raises StoreProblem with what to do."""
        self.directory = os.path.abspath(directory)
        try:
            self.files = BlobFiles(self.directory)
            data_file.check(self.directory, self._read_all)
            self._reader = Reader(self.directory)
            try:
                self._env = _open(self.directory)
                self._reader.began_at(self._env.info()["last_txnid"])
                self._open_tables()
            except BaseException:
                self._reader.close()
                raise
        except (OSError, lmdb.Error) as error:
            hint = "choose another directory with --store or BUILDGRAPH_STORE"
            raise StoreProblem(f"cannot open the store {self.directory}: {_reason(error)}", hint=hint) from None
        self._lock = threading.Condition()
        self._queue: list[tuple[Batch, Future[None]]] = []
        self._pending: dict[tuple[str, str], bytes | object] = {}
        self._pending_blobs: dict[Digest, bytes | str] = {}
        self._mine: dict[Digest, str] = {}
        self._writer: threading.Thread | None = None
        self._closing = False
        self._failure: StoreProblem | None = None
        self._run: RunDirectory | None = None
        self._counter = 0

    def _read_all(self) -> None:
        """Touch every page that is in use; for the list of free ones, look for more of them than there are."""
        with _open(self.directory) as env, env.begin(write=True) as txn:
            for name in (*TABLES, BLOBS):
                with contextlib.suppress(lmdb.NotFoundError):
                    for _, value in txn.cursor(env.open_db(name.encode(), txn, create=False)):
                        bytes(value)
            txn.put(b"probe", bytes(PROBE))
            txn.abort()

    def _open_tables(self) -> None:
        with self._env.begin(buffers=False) as txn:
            meta = txn.get(b"format")
        if meta is None:
            self._env.open_db(b"meta", create=True)
            with self._env.begin(write=True) as txn:
                if txn.put(b"format", FORMAT, overwrite=False):
                    View(txn, {}).set_measured(0, time.time())
                meta = txn.get(b"format")
        if meta != FORMAT:
            raise OSError(0, f"it has layout version {meta!r}, this program knows {FORMAT!r}")
        self._dbs = {name: self._env.open_db(name.encode(), create=True) for name in (*TABLES, BLOBS)}

    # reading

    def get(self, table: Table, key: str) -> bytes | None:
        return self.get_many(table, (key,)).get(key)

    def get_many(self, table: Table, keys: Iterable[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self._lock:
            pending = {key: self._pending.get((table, key)) for key in keys}
        with self.view() as view:
            for key, value in pending.items():
                if value is None:
                    value = view.get(table, key)
                if isinstance(value, bytes):
                    found[key] = value
        return found

    def scan(self, table: Table, prefix: str = "") -> list[tuple[str, bytes]]:
        found: dict[str, bytes | object] = {}
        # First what waits to be written: between the two it may move from there into the database, never back.
        with self._lock:
            pending = {key: value for (of, key), value in self._pending.items() if of == table}
        with self.view() as view:
            found.update(view.scan(table, prefix))
        found.update(pending)
        return sorted((k, v) for k, v in found.items() if isinstance(v, bytes) and k.startswith(prefix))

    def has_blob(self, digest: Digest) -> bool:
        with self._lock:
            if digest in self._pending_blobs:
                return True
        if digest.size <= INLINE_LIMIT:
            with self.view() as view:
                return view.blob(digest) is not None
        return self.files.has(digest)

    def read_blob(self, digest: Digest) -> bytes:
        with self._lock:
            pending = self._pending_blobs.get(digest)
        if isinstance(pending, bytes):
            return pending
        if pending is None and digest.size <= INLINE_LIMIT:
            with self.view() as view:
                value = view.blob(digest)
            if value is not None:
                return value
            raise StoreProblem(f"the store has no blob {digest}")
        try:
            with open(pending if isinstance(pending, str) else self.files.path(digest), "rb") as file:
                return file.read()
        except FileNotFoundError:
            if pending is not None:
                return self.read_blob(digest)  # it has just been moved to its place
            raise StoreProblem(f"the store has no blob {digest}") from None
        except OSError as error:
            raise StoreProblem(f"cannot read blob {digest}: {error.strerror}") from None

    def blob_path(self, digest: Digest) -> str:
        with self._lock:
            mine = self._mine.get(digest)
        if mine is not None and os.path.exists(mine):
            return mine
        path = self.files.path(digest)
        if os.path.exists(path):
            return path
        if digest.size > INLINE_LIMIT and not self.has_blob(digest):
            raise StoreProblem(f"the store has no blob {digest}")
        copy = self.scratch(f"blob-{digest.hash}", unique=False)
        if not os.path.exists(copy):
            try:
                os.rename(self._spill(digest, self.read_blob(digest)), copy)
            except OSError as error:
                raise self._problem(error) from None
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

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """What is committed, as of one moment, for whoever goes through much of it."""
        with self._env.begin() as txn:
            yield View(txn, self._dbs)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[View]:
        """Change what is committed, all of it or, after an exception, nothing; everybody else's writes wait.

        What is queued is not seen: `commit(Batch())` before. For the management of the store; builds use `commit`.
        Raises StoreProblem.
        """
        try:
            with self._env.begin(write=True) as txn:
                yield View(txn, self._dbs)
        except (OSError, lmdb.Error) as error:
            raise self._problem(error) from None

    @property
    def reader(self) -> str:
        """Its name among `cache.readers`."""
        return self._reader.name

    # writing

    def commit(self, batch: Batch) -> None:
        if self._writer is not None:
            self.submit(batch).result()
            return
        # Without a Future, whose import takes 7 ms that a build with nothing to do need not pay.
        self._write_queued()
        if self._failure is not None:
            raise self._failure
        try:
            refused = self._write([batch])
        except (StoreProblem, OSError, lmdb.Error) as error:
            self._failure = self._problem(error)
            raise self._failure from None
        if refused:
            raise refused[0]

    def submit(self, batch: Batch) -> Future[None]:
        from concurrent.futures import Future  # 7 ms that a build with nothing to do need not pay

        future: Future[None] = Future()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            for digest, data in batch.blobs.items():
                self._pending_blobs[digest] = data
            for file in batch.files:
                self._pending_blobs[file.digest] = self._mine[file.digest] = file.path
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
            refused: dict[int, StoreProblem] = {}
            try:
                refused = self._write([batch for batch, _ in group])
            except (StoreProblem, OSError, lmdb.Error) as error:
                failure = self._problem(error)
            with self._lock:
                if failure is not None:
                    self._failure = failure
                queued = [batch for batch, _ in self._queue]
                for batch, _ in group:
                    self._forget(batch, queued)
                self._lock.notify_all()
            for number, (_, future) in enumerate(group):
                problem = failure or refused.get(number)
                if problem is None:
                    future.set_result(None)
                else:
                    future.set_exception(problem)

    def _problem(self, error: Exception) -> StoreProblem:
        if isinstance(error, StoreProblem):
            return error
        reason = _reason(error)
        # LMDB calls a write that was cut short, as the last one on a full disk is, an input/output error.
        if isinstance(error, lmdb.Error):
            with contextlib.suppress(OSError):
                reason = os.strerror(errno.ENOSPC) if free_bytes(self.directory) < NO_SPACE else reason
        hint = "free some space, or choose another directory with --store"
        return StoreProblem(f"cannot write to the store {self.directory}: {reason}", hint=hint)

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

    def _write(self, batches: list[Batch]) -> dict[int, StoreProblem]:
        """Files first, then one transaction: a record is never seen without its blobs (I3).

        Numbers of the batches that were refused, because a blob that they need is gone.
        """
        small: dict[Digest, bytes] = {}
        large: dict[Digest, str] = {}
        for batch in batches:
            for digest, data in batch.blobs.items():
                if digest.size <= INLINE_LIMIT:
                    small[digest] = data
                else:
                    large[digest] = self._spill(digest, data)
            for file in batch.files:
                if file.digest.size <= INLINE_LIMIT:
                    with open(file.path, "rb") as opened:
                        small[file.digest] = opened.read()
                else:
                    large[file.digest] = file.path
        new = self.files.place(large)
        refused: dict[int, StoreProblem] = {}
        with self._env.begin(write=True) as txn:
            view = View(txn, self._dbs)
            # A clean-up may have taken one that stood there already; while we hold the lock, none does (condemned.py).
            new |= self.files.place({digest: path for digest, path in large.items() if not self.files.has(digest)})
            size = sum(digest.size for digest in (*small, *new))
            for digest, data in small.items():
                view.put_blob(digest, data)
            condemned.take_back(view, map(str, (*small, *large)))
            for number, batch in enumerate(batches):
                gone = condemned.first_missing(view, self.files, batch.needs)
                if gone is not None:
                    refused[number] = StoreProblem(f"the store has no blob {gone}, which a record needs")
                    continue
                condemned.take_back(view, map(str, batch.needs))
                condemned.take_back(view, chain.from_iterable(blobs_in(of, value) for of, _, value in batch.records))
                for table, key, value in batch.records:
                    view.put(table, key, value)
                    size += len(value)
                for table, key in batch.deleted:
                    view.delete(table, key)
            if size:
                view.add_written(size)
        return refused

    def _spill(self, digest: Digest, data: bytes) -> str:
        path = self.scratch(f"blob-{digest.hash}")
        with open(path, "wb") as file:
            file.write(data)
        return path

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
        self._reader.close()
        if self._failure is not None:
            raise self._failure

    def discard(self, path: str, blob: Digest | None = None) -> None:
        """Delete something below `scratch` early; harmless if it is gone. blob: what it was committed as."""
        if blob is not None:
            self._mine.pop(blob, None)
        if os.path.lexists(path):
            remove_tree(path)


def _open(directory: str) -> lmdb.Environment:
    return lmdb.open(directory, map_size=MAP_SIZE, max_dbs=len(TABLES) + 2, mode=0o600, max_readers=1024, metasync=True)


def _reason(error: Exception) -> str:
    if isinstance(error, lmdb.MapFullError):
        return "it is full"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)

