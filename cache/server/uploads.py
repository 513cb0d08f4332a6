"""Uploads: blobs that are on their way in, hashed as they come, and kept for a while when their stream breaks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
from blake3 import blake3

from cache.blob_files import INLINE_LIMIT
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.server.limits import MAX_BROKEN, RESUME_SECONDS
from cache.server.refusal import Refused, invalid
from cache.server.shelf import NewBlob
from cache.server.wire_digest import size_of
from cache.server.zstd_stream import ZstdStream
from cache.store import NewFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

    from cache.server.resource_names import ResourceName
    from cache.server.shelf import Shelf


FLUSH = 64 << 20
"""Bytes after which what came is sent to the disk, beside what comes: else all of it would have to wait at the end."""


class Upload:
    """One blob. Its methods are called by whoever claimed it, one thread at a time.

    received: bytes of the stream so far, compressed ones if it is compressed. size: bytes of the blob so far.
    """

    def __init__(self, resource: ResourceName, path: str) -> None:
        """path: where a large blob is written. Raises StoreProblem."""
        self.resource = resource
        self.expected = size_of(resource.blob)
        self.received = self.size = 0
        self.last = time.monotonic()
        self.claims = self.streams = 0
        self.lock = threading.Lock()
        self._path = path
        self._hashes = hashlib.sha256(), blake3()
        self._zstd = ZstdStream(self.expected) if resource.zstd else None
        self._memory = bytearray()
        self._flushed = 0
        self._flush: Future[None] | None = None
        self._fd = -1
        if self.expected > INLINE_LIMIT:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreProblem(f"cannot write to the store: {error.strerror}") from None

    def write(self, data: bytes, flusher: Executor) -> None:
        """The next bytes of the stream. Raises Refused, StoreProblem."""
        if self._zstd is None:
            self._add(data)
        else:
            for piece in self._zstd.feed(data):
                self._add(piece)
        self.received += len(data)
        self.last = time.monotonic()
        if self.size - self._flushed >= FLUSH and self._fd >= 0 and (self._flush is None or self._flush.done()):
            self._flushed = self.size
            self._flush = flusher.submit(_sync_data, self._fd)

    def _add(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.expected:
            raise invalid(f"more than the {self.expected} bytes that the digest says came in; check what is uploaded")
        for each in self._hashes:
            each.update(data)
        if self._fd < 0:
            self._memory += data
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise StoreProblem(f"cannot write to the store: {error.strerror}") from None

    @property
    def whole(self) -> bool:
        return self.size == self.expected and (self._zstd is None or self._zstd.whole)

    def store(self, shelf: Shelf, by: str) -> None:
        """Check all that came, and keep it; durable on return. Raises Refused, StoreProblem."""
        sha256, digest = self._hashes[0].hexdigest(), Digest(self._hashes[1].hexdigest(), self.size)
        hash_ = sha256 if self.resource.function == "sha256" else digest.hash
        if not self.whole or f"{hash_}/{self.size}" != self.resource.blob:
            what = f"the bytes that came are {hash_}/{self.size}, not {self.resource.blob}"
            raise invalid(f"{what}; they were thrown away, upload again")
        if self._fd < 0:
            shelf.put(self.resource.namespace, [NewBlob(digest, sha256, bytes(self._memory))], by)
            return
        try:
            # Here, so that the store's one writer, for whom everybody waits, finds nothing left to sync.
            os.fsync(self._fd)
        except OSError as error:
            raise StoreProblem(f"cannot write to the store: {error.strerror}") from None
        shelf.put_file(self.resource.namespace, NewFile(digest, self._path), sha256, by)

    def close(self) -> None:
        if self._flush is not None:
            futures.wait((self._flush,))  # the number of a closed descriptor may soon be another file's
        if self._fd >= 0:
            os.close(self._fd)
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._fd = -2


def _sync_data(fd: int) -> None:
    with contextlib.suppress(OSError):  # the last one, for which somebody waits, tells
        os.fdatasync(fd)


class Uploads:
    """May be used by several threads at once."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.flusher = futures.ThreadPoolExecutor(2, thread_name_prefix="flush")
        self._lock = threading.Lock()
        self._all: dict[tuple[str, ResourceName], Upload] = {}

    def received(self, by: str, resource: ResourceName) -> int:
        """Bytes of an upload that is not finished; 0 for an unknown one."""
        upload = self._all.get((by, resource))
        return 0 if upload is None else upload.received

    @contextlib.contextmanager
    def claim(self, by: str, resource: ResourceName, offset: int) -> Iterator[Claim]:
        """The upload of that name, a new one if there is none, for a stream that begins at `offset`.

        An earlier stream of the same upload loses it: its client has come back. At the end the upload is gone if it
        was stored or refused; if the stream broke, it waits. Raises Refused.
        """
        key = by, resource
        with self._lock:
            upload = self._all.get(key)
            if upload is not None and offset == 0 and upload.received:
                self._drop(key)  # from the beginning again
                upload = None
            if upload is None:
                upload = self._all[key] = Upload(resource, self._shelf.store.scratch("upload"))
            upload.streams += 1
        with upload.lock:
            upload.claims += 1
            claim = Claim(upload, upload.claims, self.flusher)
        try:
            if offset != upload.received:
                text = f"the upload goes on at {upload.received} bytes, not at {offset}; ask QueryWriteStatus"
                raise Refused(grpc.StatusCode.OUT_OF_RANGE, text)
            yield claim
        except (Refused, StoreProblem) as error:
            if not (isinstance(error, Refused) and error.code in _KEEP):
                self._forget(key, upload)
            raise
        finally:
            if claim.done:
                self._forget(key, upload)
            with self._lock:
                upload.streams -= 1

    def _forget(self, key: tuple[str, ResourceName], upload: Upload) -> None:
        with self._lock:
            if self._all.get(key) is upload:
                self._drop(key)

    def _drop(self, key: tuple[str, ResourceName]) -> None:
        upload = self._all.pop(key)
        with upload.lock:
            upload.claims += 1
            upload.close()

    def sweep(self) -> None:
        """Drop what nobody came back for."""
        now = time.monotonic()
        with self._lock:
            broken = [key for key, upload in self._all.items() if not upload.streams]
            oldest = sorted(broken, key=lambda key: self._all[key].last)
            for number, key in enumerate(oldest):
                old = now - self._all[key].last > RESUME_SECONDS
                if old or number < len(oldest) - MAX_BROKEN:
                    self._drop(key)

    def close(self) -> None:
        with self._lock:
            for key in tuple(self._all):
                self._drop(key)
        self.flusher.shutdown()


_KEEP = (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.ABORTED)
"""What says nothing against the bytes that came."""


class Claim:
    """The right of one stream to write an upload, until another one takes it."""

    def __init__(self, upload: Upload, number: int, flusher: Executor) -> None:
        self._upload = upload
        self._flusher = flusher
        self._number = number
        self.done = False

    @property
    def received(self) -> int:
        return self._upload.received

    @property
    def whole(self) -> bool:
        return self._upload.whole

    def write(self, offset: int, data: bytes) -> None:
        """Raises Refused, StoreProblem."""
        with self._upload.lock:
            self._check()
            if offset != self._upload.received:
                raise invalid(f"a message says offset {offset}, the upload is at {self._upload.received}")
            self._upload.write(data, self._flusher)

    def store(self, shelf: Shelf, by: str) -> None:
        """Raises Refused, StoreProblem."""
        with self._upload.lock:
            self._check()
            self._upload.store(shelf, by)
            self.done = True

    def _check(self) -> None:
        if self._upload.claims != self._number:
            raise Refused(grpc.StatusCode.ABORTED, "another stream goes on with this upload")
