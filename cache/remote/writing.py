"""Writing: blobs to a server, only those that it has not, large ones in chunks if most of them are there."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import grpc
import zstandard
from buildgraph.v1 import bytestream_pb2
from buildgraph.v1 import remote_execution_pb2 as pb

from cache.errors import StoreProblem
from cache.remote.action_results import digest_of, size_of
from cache.remote.client import DIGEST_BYTES
from cache.remote.reading import CHUNKED, PARALLEL
from cache.remote.trouble import Missing, RemoteTrouble, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cache.digest import Digest
    from cache.remote.client import Client
    from cache.remote.local_chunks import LocalChunks
    from cache.remote.reading import Traffic

PIECE = 1 << 20
"""Bytes of one message of a stream."""
ZSTD_LEVEL = 1
MIN_PACKED = 1 << 10
LOOK_SECONDS = 0.1
"""How often is looked whether an upload is still wanted; the wire may take nothing for as long as a call may last."""
MOST_NEW = 0.5
"""If more of a blob than this is new it goes as a whole: chunks are written twice by the server."""


def _go_on() -> None:
    return


class Outgoing(NamedTuple):
    """A blob of the local store. name: what the server calls it."""

    digest: Digest
    name: str


class Blobs(Protocol):
    """What is read of the local store."""

    def read_blob(self, digest: Digest) -> bytes: ...
    def blob_path(self, digest: Digest) -> str: ...


class BlobWriter:
    """May be used by several threads at once. All methods raise RemoteTrouble and StoreProblem, and soon what `check`
    raises, which is called now and then."""

    def __init__(self, client: Client, store: Blobs, chunks: LocalChunks, traffic: Traffic) -> None:
        self._client = client
        self._store = store
        self._chunks = chunks
        self._traffic = traffic

    def missing(self, namespace: str, names: Iterable[str], check: Callable[[], None] = _go_on) -> list[str]:
        """Those that the server has not."""
        client, left, found = self._client, list(dict.fromkeys(names)), []
        while left:
            now, left = left[: client.most_digests], left[client.most_digests :]
            request = pb.FindMissingBlobsRequest(
                instance_name=namespace, blob_digests=map(digest_of, now), digest_function=client.function
            )  # fmt: skip
            answer = self._call(client.cas.FindMissingBlobs, request, check)
            found += [f"{each.hash}/{each.size_bytes}" for each in answer.missing_blob_digests]
        return found

    def put(self, namespace: str, blobs: Sequence[Outgoing], check: Callable[[], None] = _go_on) -> None:
        """Have the server have all of them."""
        by_name = {blob.name: blob for blob in blobs if size_of(blob.name)}
        absent = [by_name[name] for name in self.missing(namespace, by_name, check) if name in by_name]
        large = [blob for blob in absent if blob.digest.size >= CHUNKED or blob.digest.size > self._client.can.batch]
        taken = {blob.name for blob in large}
        small = ((blob.name, self._store.read_blob(blob.digest)) for blob in absent if blob.name not in taken)
        with ThreadPoolExecutor(PARALLEL, "publish") as pool:
            waiting = [pool.submit(self._put_large, namespace, blob, check) for blob in large]
            self.put_small(namespace, small, check)
            for each in waiting:
                each.result()

    def put_small(
        self, namespace: str, blobs: Iterable[tuple[str, bytes]], check: Callable[[], None] = _go_on
    ) -> None:
        """(name, bytes) each, of less than a message."""
        request = self._new_batch(namespace)
        size = 0
        for name, data in blobs:
            if size and size + len(data) + DIGEST_BYTES > self._client.can.batch:
                self._send(request, size, check)
                request, size = self._new_batch(namespace), 0
            packed = self._packed(data)
            if packed is None:
                request.requests.add(digest=digest_of(name), data=data)
            else:
                request.requests.add(digest=digest_of(name), data=packed, compressor=pb.Compressor.ZSTD)
            size += len(data) + DIGEST_BYTES
        if request.requests:
            self._send(request, size, check)

    def _new_batch(self, namespace: str) -> pb.BatchUpdateBlobsRequest:
        return pb.BatchUpdateBlobsRequest(instance_name=namespace, digest_function=self._client.function)

    def _packed(self, data: bytes) -> bytes | None:
        if not self._client.can.zstd or len(data) < MIN_PACKED:
            return None
        packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)
        return packed if len(packed) < len(data) else None

    def _call(self, method: Any, request: Any, check: Callable[[], None], size: int = 0) -> Any:
        caller = self._client.caller

        def once(deadline: float) -> Any:
            check()
            return _answer(method.future(request, timeout=deadline, metadata=caller.metadata), check)

        return caller.attempt(once, size=size)

    def _send(self, request: pb.BatchUpdateBlobsRequest, size: int, check: Callable[[], None]) -> None:
        client = self._client
        answer = self._call(client.cas.BatchUpdateBlobs, request, check, size)
        self._traffic.written += sum(len(each.data) for each in request.requests)
        wrong = next((each.status for each in answer.responses if each.status.code), None)
        if wrong is not None:
            raise RemoteTrouble(f"the remote {client.settings.origin} did not take a blob: {wrong.message[:200]}")

    def _put_large(self, namespace: str, blob: Outgoing, check: Callable[[], None]) -> None:
        client = self._client
        check()
        if client.can.splice and client.can.function == "blake3" and blob.digest.size >= CHUNKED:
            parts = self._chunks.of(blob.digest)
            absent = set(self.missing(namespace, parts, check))
            fits = len(parts) <= client.most_digests and max(map(size_of, absent), default=0) <= client.can.batch
            if fits and sum(map(size_of, absent)) <= MOST_NEW * blob.digest.size:
                try:
                    self._splice(namespace, blob, parts, absent, check)
                    return
                except (Missing, Unsupported):
                    pass  # a chunk went meanwhile, or it does not do that after all
        self._write(namespace, blob, check)
        if client.can.split and client.can.function == "blake3":
            # So that it knows the chunks when the next version of this blob comes.
            request = pb.SplitBlobRequest(
                instance_name=namespace, blob_digest=digest_of(blob.name), digest_function=client.function
            )  # fmt: skip
            client.cas.SplitBlob.future(request, timeout=60, metadata=client.caller.metadata)

    def _splice(
        self, namespace: str, blob: Outgoing, parts: list[str], absent: set[str], check: Callable[[], None]
    ) -> None:
        client = self._client
        if absent:
            self.put_small(namespace, self._read_parts(blob, parts, absent), check)
        request = pb.SpliceBlobRequest(
            instance_name=namespace, blob_digest=digest_of(blob.name), chunk_digests=map(digest_of, parts),
            digest_function=client.function, chunking_function=pb.ChunkingFunction.FAST_CDC_2020,
        )  # fmt: skip
        self._call(client.cas.SpliceBlob, request, check, blob.digest.size)

    def _read_parts(self, blob: Outgoing, parts: list[str], absent: set[str]) -> Iterator[tuple[str, bytes]]:
        offset = 0
        left = set(absent)
        with _opened(self._store, blob.digest) as file:
            for name in parts:
                if name in left:
                    left.remove(name)
                    yield name, os.pread(file.fileno(), size_of(name), offset)
                offset += size_of(name)

    def _write(self, namespace: str, blob: Outgoing, check: Callable[[], None]) -> None:
        """The whole blob as a stream, from its beginning on each try: what broke is rare, and a resumed stream of a
        compressor's output would have to be kept."""
        client = self._client
        zstd = client.can.zstd
        function = "blake3/" if client.can.function == "blake3" else ""
        prefix = f"{namespace}/" if namespace else ""
        form = "compressed-blobs/zstd" if zstd else "blobs"
        size = blob.digest.size

        def once(deadline: float) -> Any:
            name = f"{prefix}uploads/{uuid.uuid4()}/{form}/{function}{blob.name}"
            check()
            requests = self._requests(name, blob, zstd=zstd)
            call = client.streams.Write.future(requests, timeout=deadline, metadata=client.caller.metadata)
            return _answer(call, check)

        answer = client.caller.attempt(once, size=size)
        if answer.committed_size not in (size, -1) and not zstd:
            raise RemoteTrouble(f"the remote {client.settings.origin} took {answer.committed_size} of {size} bytes")

    def _requests(self, name: str, blob: Outgoing, *, zstd: bool) -> Iterator[bytestream_pb2.WriteRequest]:
        packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj(size=blob.digest.size) if zstd else None
        offset, piece = 0, min(PIECE, self._client.can.batch)
        with _opened(self._store, blob.digest) as file:
            last = False
            while not last:
                data = file.read(piece)
                last = file.tell() >= blob.digest.size or not data
                if packer is not None:
                    data = packer.compress(data) + (packer.flush() if last else b"")
                # A compressor gives what it has gathered, which may be more than a piece.
                for at in range(0, max(len(data), 1 if last else 0), piece):
                    part = data[at : at + piece]
                    yield bytestream_pb2.WriteRequest(
                        resource_name=name, write_offset=offset, data=part,
                        finish_write=last and at + piece >= len(data),
                    )  # fmt: skip
                    offset += len(part)
                    self._traffic.written += len(part)


def _answer(call: Any, check: Callable[[], None]) -> Any:
    """The answer to a call that was begun. Raises grpc.RpcError, and what `check` raises; then the call has ended."""
    while True:
        try:
            return call.result(LOOK_SECONDS)
        except grpc.FutureCancelledError:
            raise call from None  # it is the error, too, with a code
        except grpc.FutureTimeoutError:
            try:
                check()
            except BaseException:
                call.cancel()
                raise


def _opened(store: Blobs, digest: Digest) -> Any:
    try:
        return open(store.blob_path(digest), "rb")
    except OSError as error:
        raise StoreProblem(f"cannot read a layer: {error.strerror}") from None


