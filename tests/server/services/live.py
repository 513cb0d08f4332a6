"""A server in this process over a real store, and clients that speak to it over loopback."""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from blake3 import blake3
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import bytestream_pb2_grpc, remote_execution_pb2_grpc, team_pb2_grpc
from buildgraph.v1 import remote_execution_pb2 as pb

from cache.lmdb_store import LmdbStore
from cache.server.access import Caller, OpenGuard, Scope
from cache.server.hold import Hold
from cache.server.refusal import Refused
from cache.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cache.server.access import Guard

SHA256, BLAKE3 = pb.DigestFunction.SHA256, pb.DigestFunction.BLAKE3
FUNCTIONS = (SHA256, BLAKE3)
IDS = ("sha256", "blake3")


class Failure(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    text: str


class Live:
    """One server and one client. `again` starts a new server on the same store."""

    def __init__(self, path: Path, guard: Guard | None = None, **options: Any) -> None:
        self.path = path
        self.guard = guard or OpenGuard("read", "write")
        self.options = options
        self.start()

    def start(self) -> None:
        self.store = LmdbStore(str(self.path))
        self.server = Server(self.store, "127.0.0.1:0", self.guard, **self.options)
        self.server.start()
        self.channel = self.connect()
        self.capabilities = remote_execution_pb2_grpc.CapabilitiesStub(self.channel)
        self.cas = remote_execution_pb2_grpc.ContentAddressableStorageStub(self.channel)
        self.actions = remote_execution_pb2_grpc.ActionCacheStub(self.channel)
        self.stream = bytestream_pb2_grpc.ByteStreamStub(self.channel)
        self.team = team_pb2_grpc.TeamStub(self.channel)

    def connect(self) -> grpc.Channel:
        options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        return grpc.insecure_channel(f"127.0.0.1:{self.server.port}", options=options)

    def stop(self) -> None:
        self.channel.close()
        self.server.stop(0.5)
        self.store.close()

    def again(self) -> None:
        self.stop()
        self.start()

    # what most tests do

    def write(self, data: bytes, *, namespace: str = "", function: int = SHA256, piece: int = 1 << 20, metadata: Any = None) -> int:
        name = write_name(data, namespace, function)
        return self.stream.Write(write_requests(name, data, piece), metadata=metadata).committed_size

    def read(self, name: str, offset: int = 0, limit: int = 0) -> bytes:
        request = bs.ReadRequest(resource_name=name, read_offset=offset, read_limit=limit)
        return b"".join(answer.data for answer in self.stream.Read(request))

    def missing(self, *digests: pb.Digest, namespace: str = "", function: int = SHA256, metadata: Any = None) -> list[pb.Digest]:
        request = pb.FindMissingBlobsRequest(instance_name=namespace, blob_digests=digests, digest_function=function)
        return list(self.cas.FindMissingBlobs(request, metadata=metadata).missing_blob_digests)

    def put(self, *blobs: bytes, namespace: str = "", function: int = SHA256, metadata: Any = None) -> None:
        requests = [pb.BatchUpdateBlobsRequest.Request(digest=digest(blob, function), data=blob) for blob in blobs]
        answer = self.cas.BatchUpdateBlobs(
            pb.BatchUpdateBlobsRequest(instance_name=namespace, requests=requests, digest_function=function), metadata=metadata
        )
        assert [each.status.code for each in answer.responses] == [0] * len(blobs)

    def get(self, *digests: pb.Digest, namespace: str = "", function: int = SHA256) -> list[bytes | None]:
        request = pb.BatchReadBlobsRequest(instance_name=namespace, digests=digests, digest_function=function)
        answers = self.cas.BatchReadBlobs(request).responses
        assert [each.digest for each in answers] == list(digests)
        return [None if each.status.code == grpc.StatusCode.NOT_FOUND.value[0] else each.data for each in answers]


class NamedGuard:
    """Lets in who says a name that is listed, with the scopes listed for each namespace."""

    def __init__(self, grants: dict[str, dict[str, tuple[Scope, ...]]], quota: int = 1 << 40) -> None:
        self.grants = grants
        self.quota = quota

    def identify(self, context: grpc.ServicerContext) -> Caller:
        name = str(dict(context.invocation_metadata()).get("name", ""))
        if name not in self.grants:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "say a name")
        granted = self.grants[name]
        return Caller(name, lambda scope, namespace: scope in granted.get(namespace, ()), tuple(granted))

    def admit(self, context: grpc.ServicerContext, scope: Scope, namespace: str) -> Caller:
        caller = self.identify(context)
        if not caller.may(scope, namespace):
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, f"{caller.name} may not {scope} {namespace}")
        return caller

    def accept(self, caller: Caller, namespace: str, size: int) -> Hold:
        if size > self.quota:
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{caller.name} has {self.quota} bytes in {namespace}")
        return Hold()

    def take_over(self, namespace: str, blobs: int, size: int) -> Hold:
        return Hold()


def failure(call: Callable[[], object]) -> Failure:
    """How a call fails; AssertionError if it does not."""
    try:
        answer = call()
        if hasattr(answer, "__next__"):
            list(answer)
    except grpc.RpcError as error:
        return Failure(error.code(), error.details())
    raise AssertionError(f"it did not fail: {answer!r}"[:500])


def hash_of(data: bytes, function: int = SHA256) -> str:
    return hashlib.sha256(data).hexdigest() if function == SHA256 else blake3(data).hexdigest()


def digest(data: bytes, function: int = SHA256) -> pb.Digest:
    return pb.Digest(hash=hash_of(data, function), size_bytes=len(data))


def read_name(data: bytes, namespace: str = "", function: int = SHA256, *, zstd: bool = False) -> str:
    kind = "compressed-blobs/zstd" if zstd else "blobs"
    middle = "blake3/" if function == BLAKE3 else ""
    return f"{namespace}{'/' if namespace else ''}{kind}/{middle}{hash_of(data, function)}/{len(data)}"


def write_name(data: bytes, namespace: str = "", function: int = SHA256, *, zstd: bool = False, upload: str = "") -> str:
    prefix = f"{namespace}/" if namespace else ""
    return f"{prefix}uploads/{upload or uuid.uuid4()}/{read_name(data, '', function, zstd=zstd)}"


def write_requests(name: str, data: bytes, piece: int = 1 << 20, start: int = 0, *, finish: bool = True) -> Iterator[bs.WriteRequest]:
    at = start
    while True:
        part = data[at : at + piece]
        last = at + piece >= len(data)
        yield bs.WriteRequest(resource_name=name if at == start else "", write_offset=at, data=part, finish_write=last and finish)
        if last:
            return
        at += piece


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that nothing compresses, the same each time."""
    return blake3(b"%d" % seed).digest(size)


def memory() -> int:
    """Bytes that this process has for itself."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def stored_bytes(path: Path) -> int:
    """Of large blobs."""
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(path / "blobs") for name in names)
