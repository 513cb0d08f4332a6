"""ByteStream: large blobs in and out, resumable, plain or compressed."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import grpc
import zstandard
from buildgraph.v1 import bytestream_pb2 as pb
from buildgraph.v1 import bytestream_pb2_grpc as services

from cache.blob_files import INLINE_LIMIT
from cache.server.access import admit_putter
from cache.server.limits import PIECE
from cache.server.refusal import Refused, answered, answered_stream, check_space, invalid
from cache.server.resource_names import parse_read, parse_write
from cache.server.wire_digest import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.server.core import Core
    from cache.server.resource_names import ResourceName
    from cache.server.shelf import Place

_LOG = logging.getLogger("buildgraph.server")
ZSTD_LEVEL = 1
"""350 MB/s a core; the next ones take longer than a fast network saves."""


class ByteStream(services.ByteStreamServicer):
    """The service of that name in `google.bytestream`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @answered_stream
    def Read(self, request: pb.ReadRequest, context: grpc.ServicerContext) -> Iterator[pb.ReadResponse]:
        core = self._core
        resource = parse_read(request.resource_name)
        caller = core.guard.admit(context, "read", resource.namespace)
        place = core.shelf.find_one(resource.namespace, resource.function, resource.blob)
        part = _part(place, request, resource)
        pieces = self._pieces(part)
        with core.watchdog.watch(context, caller) as stream:
            for piece in _packed(pieces, part.size) if resource.zstd else pieces:
                stream.moved += len(piece)
                yield pb.ReadResponse(data=piece)
            core.meter.sent(resource.namespace, stream.moved)

    def _pieces(self, part: Place) -> Iterator[bytes]:
        shelf = self._core.shelf
        if part.holder.size <= INLINE_LIMIT:
            if part.size:
                yield shelf.read(part)
            return
        fd = shelf.open(part)
        try:
            at, end = part.offset, part.offset + part.size
            while at < end:
                piece = os.pread(fd, min(PIECE, end - at), at)
                if not piece:
                    raise shelf.gone(part.holder)
                at += len(piece)
                yield piece
        finally:
            os.close(fd)

    @answered
    def Write(self, request_iterator: Iterator[pb.WriteRequest], context: grpc.ServicerContext) -> pb.WriteResponse:
        core = self._core
        first = next(request_iterator, None)
        if first is None:
            raise invalid("a write begins with a message that names the resource")
        resource = parse_write(first.resource_name)
        caller = admit_putter(core.guard, context, resource.namespace)
        size = size_of(resource.blob)
        if not core.shelf.missing(resource.namespace, resource.function, (resource.blob,), caller):
            return pb.WriteResponse(committed_size=-1 if resource.zstd else size)
        check_space(core.shelf.store.directory, size)
        with (
            core.guard.accept(caller, resource.namespace, size) as hold,
            core.watchdog.watch(context, caller) as stream,
            core.uploads.claim(caller.name, resource, first.write_offset) as claim,
        ):
            request: pb.WriteRequest | None = first
            finished = False
            while request is not None and not finished:
                if request.resource_name not in ("", first.resource_name):
                    raise invalid("all messages of a write name the same resource, or none")
                data = request.data
                claim.write(request.write_offset, data)
                stream.moved += len(data)
                finished = request.finish_write
                request = None if finished else _next(request_iterator)
            if not (finished or claim.whole):
                text = "an upload of %s by %s broke off at %d bytes, perhaps by a message that was too large"
                _LOG.info(text, resource.blob, caller.name, claim.received)
                hold.release()  # it counts again when its client comes back
            else:
                stream.resting = True
                claim.store(core.shelf, caller.name)
                core.meter.received(resource.namespace, size)
            return pb.WriteResponse(committed_size=claim.received)

    @answered
    def QueryWriteStatus(
        self, request: pb.QueryWriteStatusRequest, context: grpc.ServicerContext
    ) -> pb.QueryWriteStatusResponse:
        resource = parse_write(request.resource_name)
        caller = admit_putter(self._core.guard, context, resource.namespace)
        if not self._core.shelf.missing(resource.namespace, resource.function, (resource.blob,), caller):
            return pb.QueryWriteStatusResponse(committed_size=size_of(resource.blob), complete=True)
        return pb.QueryWriteStatusResponse(committed_size=self._core.uploads.received(caller.name, resource))


def _next(requests: Iterator[pb.WriteRequest]) -> pb.WriteRequest | None:
    """None as well if the stream broke: what came is kept for a client that comes back."""
    try:
        return next(requests, None)
    except grpc.RpcError:
        return None


def _part(place: Place, request: pb.ReadRequest, resource: ResourceName) -> Place:
    """What of the blob was asked for. Raises Refused."""
    if request.read_limit < 0 or (resource.zstd and request.read_limit):
        raise invalid("read_limit is 0 or more, and 0 for compressed blobs")
    if not 0 <= request.read_offset <= place.size:
        text = f"read_offset is {request.read_offset}, the blob has {place.size} bytes"
        raise Refused(grpc.StatusCode.OUT_OF_RANGE, text)
    left = place.size - request.read_offset
    size = min(left, request.read_limit) if request.read_limit else left
    return place._replace(offset=place.offset + request.read_offset, size=size)


def _packed(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj(size=size)
    for piece in pieces:
        packed = packer.compress(piece)
        if packed:
            yield packed
    yield packer.flush()
