"""Reading: blobs from a server, verified: many small ones at once, a large one in chunks or as a stream."""

from __future__ import annotations

import collections
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import zstandard
from buildgraph.v1 import bytestream_pb2
from buildgraph.v1 import remote_execution_pb2 as pb

from cache.errors import CorruptBlob
from cache.remote.action_results import digest_of, name_by, size_of
from cache.remote.caller import TRIES
from cache.remote.trouble import TRANSIENT, Missing, RemoteTrouble, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache.remote.client import Client
    from cache.remote.local_chunks import LocalChunks

CHUNKED = 2 << 20
"""Bytes from which a blob is moved in chunks: a smaller one is one chunk."""
GROUP = 3 << 20
"""Bytes of chunks that are asked for at once."""
PARALLEL = 4
"""Groups on their way at the same time; more did not make a loopback server faster on 2 cores."""
AHEAD = 8
"""Groups that are asked for before they are needed: 24 MiB of memory."""


class Traffic:
    """Bytes that blobs took on the wire. Of one build; close is good enough, so nothing is locked."""

    def __init__(self) -> None:
        self.read = 0
        self.written = 0


class BlobReader:
    """Blobs of one server. May be used by several threads at once."""

    def __init__(self, client: Client, traffic: Traffic) -> None:
        self._client = client
        self._traffic = traffic

    def small(self, namespace: str, names: Sequence[str]) -> dict[str, bytes]:
        """Blobs of less than a message each, by name; those that are not there are left out.

        Raises CorruptBlob for one with other bytes than its name says, RemoteTrouble.
        """
        client, found = self._client, {}
        for group in _groups(names, client.can.batch):
            request = pb.BatchReadBlobsRequest(
                instance_name=namespace, digests=map(digest_of, group), digest_function=client.function,
                acceptable_compressors=[pb.Compressor.ZSTD] if client.can.zstd else [],
            )  # fmt: skip
            answer = client.caller.call(client.cas.BatchReadBlobs, request, size=sum(map(size_of, group)))
            wanted = set(group)
            for each in answer.responses:
                name = f"{each.digest.hash}/{each.digest.size_bytes}"
                if each.status.code == grpc.StatusCode.OK.value[0] and name in wanted:
                    self._traffic.read += len(each.data)
                    found[name] = self._checked(name, each.data, packed=each.compressor == pb.Compressor.ZSTD)
        return found

    def _checked(self, name: str, data: bytes, *, packed: bool) -> bytes:
        if packed:
            try:
                # With a bound, whatever the server says.
                data = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(1, size_of(name)))
            except zstandard.ZstdError:
                raise _wrong(self._client, name) from None
        if name_by(self._client.can.function, data) != name:
            raise _wrong(self._client, name)
        return data

    def read(self, namespace: str, name: str) -> bytes:
        """All of one blob. Raises Missing, CorruptBlob, RemoteTrouble."""
        if not size_of(name):
            return b""
        if size_of(name) <= self._client.can.batch:
            found = self.small(namespace, [name])
            if name not in found:
                raise self._missing(name)
            return found[name]
        data = b"".join(self.stream(namespace, name))
        if name_by(self._client.can.function, data) != name:
            raise _wrong(self._client, name)
        return data

    def pieces(self, namespace: str, name: str, chunks: LocalChunks) -> tuple[Iterator[bytes], list[str]]:
        """The bytes of a large blob in order, for whoever verifies the whole, and its chunks, if they are known."""
        if size_of(name) < CHUNKED:
            return iter([self.read(namespace, name)]), []
        parts = self._chunks_of(namespace, name)
        if parts is None:
            return self.stream(namespace, name), []
        return self._assemble(namespace, parts, chunks), parts

    def _chunks_of(self, namespace: str, name: str) -> list[str] | None:
        """None if the server cannot tell."""
        client = self._client
        if not client.can.split or client.can.function != "blake3":
            return None
        request = pb.SplitBlobRequest(
            instance_name=namespace, blob_digest=digest_of(name), digest_function=client.function
        )  # fmt: skip
        try:
            answer = client.caller.call(client.cas.SplitBlob, request, size=size_of(name) // 100)
        except Unsupported:
            return None
        parts = [f"{each.hash}/{each.size_bytes}" for each in answer.chunk_digests]
        fits = all(0 < size_of(part) <= client.can.batch for part in parts)
        return parts if fits and sum(map(size_of, parts)) == size_of(name) else None

    def _assemble(self, namespace: str, parts: list[str], chunks: LocalChunks) -> Iterator[bytes]:
        """Chunks in order: those that are here from here, the rest in groups, some of them ahead."""
        here = chunks.find(parts)
        pool = ThreadPoolExecutor(PARALLEL, "read")
        waiting: collections.deque[tuple[list[str], Future[dict[str, bytes]]]] = collections.deque()
        try:
            for group in _groups(parts, GROUP):
                waiting.append((group, pool.submit(self._group, namespace, group, here, chunks)))
                if len(waiting) >= AHEAD:
                    yield from _in_order(*waiting.popleft())
            while waiting:
                yield from _in_order(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _group(
        self, namespace: str, group: list[str], here: dict[str, tuple[str, int]], chunks: LocalChunks
    ) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name in dict.fromkeys(group):
            data = chunks.read(name, here[name]) if name in here else None
            if data is not None:
                found[name] = data
        absent = [name for name in dict.fromkeys(group) if name not in found]
        if absent:
            found.update(self.small(namespace, absent))
        lost = next((name for name in group if name not in found), None)
        if lost is not None:
            raise self._missing(lost)
        return found

    def stream(self, namespace: str, name: str) -> Iterator[bytes]:
        """A blob as it comes; goes on where it was after the stream broke. Nothing is verified."""
        client = self._client
        function = "blake3/" if client.can.function == "blake3" else ""
        prefix = f"{namespace}/" if namespace else ""
        size, offset, failures = size_of(name), 0, 0
        while offset < size:
            if client.caller.down:
                raise RemoteTrouble(f"the remote {client.settings.origin} is left alone, since it does not answer")
            request = bytestream_pb2.ReadRequest(
                resource_name=f"{prefix}blobs/{function}{name}", read_offset=offset
            )  # fmt: skip
            before = offset
            try:
                for message in client.caller.stream(client.streams.Read, request, size=size - offset):
                    data = message.data[: size - offset]
                    offset += len(data)
                    self._traffic.read += len(data)
                    yield data
            except grpc.RpcError as error:
                failures = 1 if offset > before else failures + 1
                if failures >= TRIES or error.code() not in TRANSIENT:
                    raise client.caller.failed(error) from None
                continue
            if offset < size:
                raise CorruptBlob(f"the remote {client.settings.origin} has only {offset} bytes of {name}")

    def _missing(self, name: str) -> Missing:
        return Missing(f"the remote {self._client.settings.origin} has no blob {name[:16]} any more")


def _wrong(client: Client, name: str) -> CorruptBlob:
    return CorruptBlob(f"the remote {client.settings.origin} gave other bytes for {name}; they were thrown away")


def _in_order(group: list[str], found: Future[dict[str, bytes]]) -> Iterator[bytes]:
    data = found.result()
    for name in group:
        yield data[name]


def _groups(names: Sequence[str], limit: int) -> Iterator[list[str]]:
    """In order, each of so many bytes at most, or of one."""
    group: list[str] = []
    size = 0
    for name in names:
        if group and size + size_of(name) > limit:
            yield group
            group, size = [], 0
        group.append(name)
        size += size_of(name)
    if group:
        yield group
