"""ContentAddressableStorage: which blobs are there, many small ones at once, and blobs in chunks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import zstandard
from blake3 import blake3
from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import remote_execution_pb2_grpc as services
from google.rpc import status_pb2

from cache.digest import Digest
from cache.server.access import admit_putter, may_put
from cache.server.byte_stream import ZSTD_LEVEL
from cache.server.limits import MAX_BATCH, MAX_CHUNKS, MAX_DIGESTS, MAX_UNPACKED
from cache.server.namespaces import checked_namespace
from cache.server.refusal import Refused, answered, answered_stream, check_space, invalid
from cache.server.shelf import NewBlob
from cache.server.trees import walk
from cache.server.wire_digest import function_of, message_of, name_of, names_of, size_of
from cache.server.zstd_stream import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from cache.server.core import Core
    from cache.server.wire_digest import Function

MIN_PACKED = 1 << 10
"""Blobs with fewer bytes gain nothing by compression."""
OWN_CHUNKING = (pb.ChunkingFunction.UNKNOWN, pb.ChunkingFunction.FAST_CDC_2020)


class ContentAddressableStorage(services.ContentAddressableStorageServicer):
    """The service of that name."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @answered
    def FindMissingBlobs(
        self, request: pb.FindMissingBlobsRequest, context: grpc.ServicerContext
    ) -> pb.FindMissingBlobsResponse:
        namespace = checked_namespace(request.instance_name)
        caller = self._core.guard.admit(context, "read", namespace)
        function = function_of(request.digest_function)
        digests = list(request.blob_digests)  # once: each look makes new objects
        if len(digests) > MAX_DIGESTS:
            raise invalid(f"ask for {MAX_DIGESTS} digests at most at once")
        writer = caller if may_put(caller, namespace) else None
        names = names_of(digests)
        missing = dict.fromkeys(self._core.shelf.missing(namespace, function, names, writer))
        if not missing:
            return pb.FindMissingBlobsResponse()
        first = {name: digest for name, digest in zip(names, digests, strict=True) if name in missing}
        return pb.FindMissingBlobsResponse(missing_blob_digests=first.values())

    @answered
    def BatchUpdateBlobs(
        self, request: pb.BatchUpdateBlobsRequest, context: grpc.ServicerContext
    ) -> pb.BatchUpdateBlobsResponse:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        caller = admit_putter(core.guard, context, namespace)
        function = function_of(request.digest_function)
        names = names_of([each.digest for each in request.requests])
        _check_sizes(request)
        absent = set(core.shelf.missing(namespace, function, names, caller))
        blobs: dict[str, NewBlob] = {}
        statuses: list[status_pb2.Status | None] = []
        for name, each in zip(names, request.requests, strict=True):
            if name not in absent:
                statuses.append(None)
                continue
            try:
                blobs[name] = _verified(function, name, each)
                statuses.append(None)
            except Refused as refused:
                statuses.append(_status(refused))
        if blobs:
            # What was verified counts, whatever the others say of themselves.
            size = sum(blob.digest.size for blob in blobs.values())
            with core.guard.accept(caller, namespace, size):
                check_space(core.shelf.store.directory, size)
                core.shelf.put(namespace, blobs.values(), caller.name)
            core.meter.received(namespace, size)
        response = pb.BatchUpdateBlobsResponse()
        for each, status in zip(request.requests, statuses, strict=True):
            response.responses.add(digest=each.digest, status=status)
        return response

    @answered
    def BatchReadBlobs(
        self, request: pb.BatchReadBlobsRequest, context: grpc.ServicerContext
    ) -> pb.BatchReadBlobsResponse:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        core.guard.admit(context, "read", namespace)
        function = function_of(request.digest_function)
        names = names_of(request.digests)
        if sum(map(size_of, names)) > MAX_BATCH:
            raise invalid(f"a batch has at most {MAX_BATCH} bytes; read large blobs by ByteStream")
        found = core.shelf.read_many(core.shelf.find(namespace, function, names))
        zstd = pb.Compressor.ZSTD in request.acceptable_compressors
        response = pb.BatchReadBlobsResponse()
        sent = 0
        for name, digest in zip(names, request.digests, strict=True):
            data = found.get(name)
            if data is None:
                response.responses.add(digest=digest, status=status_pb2.Status(code=5, message=f"no blob {name}"))
                continue
            if zstd and len(data) >= MIN_PACKED:
                packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)
                if len(packed) < len(data):
                    response.responses.add(digest=digest, data=packed, compressor=pb.Compressor.ZSTD)
                    sent += len(packed)
                    continue
            response.responses.add(digest=digest, data=data)
            sent += len(data)
        core.meter.sent(namespace, sent)
        return response

    @answered_stream
    def GetTree(self, request: pb.GetTreeRequest, context: grpc.ServicerContext) -> Iterator[pb.GetTreeResponse]:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        caller = core.guard.admit(context, "read", namespace)
        function = function_of(request.digest_function)
        root = name_of(request.root_digest)
        with core.watchdog.watch(context, caller) as stream:
            for page in walk(core.shelf, namespace, function, root, request.page_size, request.page_token):
                stream.moved += page.ByteSize()
                yield page

    @answered
    def SplitBlob(self, request: pb.SplitBlobRequest, context: grpc.ServicerContext) -> pb.SplitBlobResponse:
        namespace = checked_namespace(request.instance_name)
        self._core.guard.admit(context, "read", namespace)
        function = function_of(request.digest_function)
        _check_chunking(request.chunking_function)
        parts = self._core.chunks.split(namespace, function, name_of(request.blob_digest))
        return pb.SplitBlobResponse(
            chunk_digests=map(message_of, parts), chunking_function=pb.ChunkingFunction.FAST_CDC_2020
        )

    @answered
    def SpliceBlob(self, request: pb.SpliceBlobRequest, context: grpc.ServicerContext) -> pb.SpliceBlobResponse:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        caller = admit_putter(core.guard, context, namespace)
        function = function_of(request.digest_function)
        name = name_of(request.blob_digest)
        if not core.shelf.missing(namespace, function, (name,), caller):
            return pb.SpliceBlobResponse(blob_digest=request.blob_digest)
        if not 0 < len(request.chunk_digests) <= MAX_CHUNKS:
            raise invalid(f"a blob is spliced of 1 to {MAX_CHUNKS} chunks")
        parts = names_of(request.chunk_digests)
        cdc = request.chunking_function in OWN_CHUNKING
        with core.guard.accept(caller, namespace, size_of(name)):
            check_space(core.shelf.store.directory, size_of(name))
            core.chunks.splice(namespace, function, name, parts, caller.name, cdc=cdc)
        return pb.SpliceBlobResponse(blob_digest=request.blob_digest)


def _check_sizes(request: pb.BatchUpdateBlobsRequest) -> None:
    """Before anything is unpacked."""
    plain = packed = 0
    for each in request.requests:
        if each.compressor == pb.Compressor.IDENTITY:
            plain += len(each.data)
        elif each.digest.size_bytes <= MAX_UNPACKED:  # a larger one is refused by itself
            packed += each.digest.size_bytes
    if plain > MAX_BATCH or packed > MAX_UNPACKED:
        text = f"a batch has at most {MAX_BATCH} bytes, {MAX_UNPACKED} unpacked; write large blobs by ByteStream"
        raise invalid(text)


def _verified(function: Function, name: str, request: pb.BatchUpdateBlobsRequest.Request) -> NewBlob:
    """Raises Refused."""
    data = request.data
    if request.compressor == pb.Compressor.ZSTD:
        if size_of(name) > MAX_UNPACKED:
            raise invalid(f"a batch has at most {MAX_UNPACKED} bytes unpacked; write large blobs by ByteStream")
        data = unpack(data, size_of(name))
    elif request.compressor != pb.Compressor.IDENTITY:
        raise invalid("this server compresses by zstd only")
    digest, sha256 = Digest(blake3(data).hexdigest(), len(data)), hashlib.sha256(data).hexdigest()
    found = sha256 if function == "sha256" else digest.hash
    if f"{found}/{len(data)}" != name:
        raise invalid(f"the bytes that came are {found}/{len(data)}, not {name}")
    return NewBlob(digest, sha256, data)


def _check_chunking(value: int) -> None:
    if value not in OWN_CHUNKING:
        raise invalid("this server cuts by FAST_CDC_2020 only")


def _status(refused: Refused) -> status_pb2.Status:
    return status_pb2.Status(code=refused.code.value[0], message=refused.text)


