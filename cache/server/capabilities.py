"""Capabilities: what this server can do, as the API wants it said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import remote_execution_pb2_grpc as services
from buildgraph.v1 import semver_pb2

from cache import chunks
from cache.server.limits import MAX_BATCH, MAX_MESSAGE
from cache.server.namespaces import checked_namespace
from cache.server.refusal import answered
from cache.server.wire_digest import MAX_SIZE

if TYPE_CHECKING:
    import grpc

    from cache.server.core import Core

LOW = semver_pb2.SemVer(major=2, minor=0)
HIGH = semver_pb2.SemVer(major=2, minor=12)
"""Old Bazel refuses a server whose range does not begin with 2.0."""


class Capabilities(services.CapabilitiesServicer):
    """The service of that name."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @answered
    def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.ServerCapabilities:
        namespace = checked_namespace(request.instance_name)
        caller = self._core.guard.admit(context, "read", namespace)
        return capabilities(may_write=caller.may("write", namespace), message_limit=caller.message_limit)


def batch_limit(message_limit: int | None) -> int:
    """Bytes of blobs that go into a message of so many bytes: a quarter of it is for digests, if it is small."""
    if message_limit is None:
        return MAX_BATCH
    return min(MAX_BATCH, message_limit - min(message_limit // 4, MAX_MESSAGE - MAX_BATCH))


def capabilities(*, may_write: bool, message_limit: int | None = None) -> pb.ServerCapabilities:
    compressors = (pb.Compressor.IDENTITY, pb.Compressor.ZSTD)
    cache = pb.CacheCapabilities(
        digest_functions=(pb.DigestFunction.SHA256, pb.DigestFunction.BLAKE3),
        action_cache_update_capabilities=pb.ActionCacheUpdateCapabilities(update_enabled=may_write),
        max_batch_total_size_bytes=batch_limit(message_limit),
        symlink_absolute_path_strategy=pb.SymlinkAbsolutePathStrategy.ALLOWED,
        supported_compressors=compressors,
        supported_batch_update_compressors=compressors,  # moon compresses nothing unless both lists say so
        max_cas_blob_size_bytes=MAX_SIZE,
        split_blob_support=True,
        splice_blob_support=True,
        fast_cdc_2020_params=pb.FastCdc2020Params(avg_chunk_size_bytes=chunks.AVERAGE, seed=chunks.SEED),
    )
    return pb.ServerCapabilities(cache_capabilities=cache, low_api_version=LOW, high_api_version=HIGH)
