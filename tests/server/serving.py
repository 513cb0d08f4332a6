"""`buildgraph serve` as a user starts it, and a client that speaks the Remote Execution API to it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import grpc
from buildgraph.v1 import bytestream_pb2, bytestream_pb2_grpc
from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import remote_execution_pb2_grpc as services

ROOT = Path(__file__).resolve().parents[2]
STARTED = re.compile(r"serving (\S+) at (grpcs?)://(\S+):([0-9]+)(?:, (https?)://(\S+):([0-9]+)/)?")


def call(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program, until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "compiler", *map(str, arguments)], cwd=options.pop("cwd", ROOT),
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


def make_token(store: Path, *arguments: str) -> str:
    """A new token's secret."""
    done = call("serve", "token", "create", "--store", store, *arguments)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^ {2}(bgt_\S+)$", done.stdout, re.MULTILINE)
    return found[1] if found else ""


class Serving:
    """A server that runs. Its log is a file, its ports are whatever was free."""

    def __init__(self, root: Path, *arguments: str | Path, store: Path | None = None) -> None:
        self.store = store or root / "served"
        self.log = root / f"log-{uuid.uuid4().hex[:6]}.jsonl"
        command = [sys.executable, "-m", "compiler", "serve", "--store", self.store, "--log", self.log]
        self.process = subprocess.Popen(
            [*map(str, command), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *map(str, arguments)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = STARTED.match(line)
        assert match is not None, f"{line!r} {self.process.communicate()}"
        self.address = f"{match[3]}:{match[4]}"
        self.web = f"{match[5]}://{match[6]}:{match[7]}"

    def get(self, path: str, **options: Any) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.web + path, timeout=10, **options) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Of a whole line's name, labels with it; 0 if there is none yet."""
        text = self.get("/metrics")[1]
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.rpartition(" ")[0] == name), 0.0)

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def wait_for(self, event: str, seconds: float = 20.0) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.events(event)
            if found:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError(f"no {event} in {self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """(exit code, what it printed to standard error)."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.finish()

    def finish(self) -> tuple[int, str]:
        """The same without a signal."""
        _, text = self.process.communicate(timeout=40)
        return self.process.returncode, text

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=20)


class Client:
    """One caller with a token or none."""

    def __init__(
        self, address: str, token: str = "", credentials: grpc.ChannelCredentials | None = None, override: str = ""
    ) -> None:
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        if credentials is None:
            self.channel = grpc.insecure_channel(address)
        else:
            options = [("grpc.ssl_target_name_override", override)] if override else []
            self.channel = grpc.secure_channel(address, credentials, options)
        self.cas = services.ContentAddressableStorageStub(self.channel)
        self.actions = services.ActionCacheStub(self.channel)
        self.capabilities = services.CapabilitiesStub(self.channel)
        self.streams = bytestream_pb2_grpc.ByteStreamStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def hello(self, namespace: str = "") -> pb.ServerCapabilities:
        request = pb.GetCapabilitiesRequest(instance_name=namespace)
        return self.capabilities.GetCapabilities(request, metadata=self.metadata, timeout=10)

    def put(self, data: bytes, namespace: str = "") -> pb.Digest:
        digest = digest_of(data)
        request = pb.BatchUpdateBlobsRequest(instance_name=namespace)
        request.requests.add(digest=digest, data=data)
        answer = self.cas.BatchUpdateBlobs(request, metadata=self.metadata, timeout=20)
        assert answer.responses[0].status.code == 0, answer
        return digest

    def write(self, data: bytes, namespace: str = "") -> pb.Digest:
        """By a stream, in pieces of 1 MiB."""
        digest = digest_of(data)
        start = f"{namespace}/" if namespace else ""
        name = f"{start}uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size_bytes}"

        def requests() -> Any:
            for at in range(0, len(data), 1 << 20):
                piece = data[at : at + (1 << 20)]
                yield bytestream_pb2.WriteRequest(
                    resource_name=name, write_offset=at, data=piece, finish_write=at + len(piece) == len(data)
                )

        answer = self.streams.Write(requests(), metadata=self.metadata, timeout=60)
        assert answer.committed_size == len(data)
        return digest

    def missing(self, *digests: pb.Digest, namespace: str = "") -> list[pb.Digest]:
        request = pb.FindMissingBlobsRequest(instance_name=namespace, blob_digests=digests)
        return list(self.cas.FindMissingBlobs(request, metadata=self.metadata, timeout=10).missing_blob_digests)

    def read(self, digest: pb.Digest, namespace: str = "") -> bytes:
        start = f"{namespace}/" if namespace else ""
        request = bytestream_pb2.ReadRequest(resource_name=f"{start}blobs/{digest.hash}/{digest.size_bytes}")
        return b"".join(each.data for each in self.streams.Read(request, metadata=self.metadata, timeout=60))

    def publish(self, name: str, *outputs: pb.Digest, namespace: str = "", seconds: int = 1) -> pb.Digest:
        """A result of an action that took so long."""
        result = pb.ActionResult(exit_code=0)
        for number, digest in enumerate(outputs):
            result.output_files.add(path=f"out-{number}", digest=digest)
        result.execution_metadata.execution_start_timestamp.seconds = 1_700_000_000
        result.execution_metadata.execution_completed_timestamp.seconds = 1_700_000_000 + seconds
        action = digest_of(name.encode())
        request = pb.UpdateActionResultRequest(instance_name=namespace, action_digest=action, action_result=result)
        self.actions.UpdateActionResult(request, metadata=self.metadata, timeout=10)
        return action

    def result(self, action: pb.Digest, namespace: str = "") -> pb.ActionResult | None:
        request = pb.GetActionResultRequest(instance_name=namespace, action_digest=action)
        try:
            return self.actions.GetActionResult(request, metadata=self.metadata, timeout=10)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise


def digest_of(data: bytes) -> pb.Digest:
    return pb.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


class Refusal:
    """What a call that must fail failed with: `with Refusal() as refused: …`, then its code and text."""

    code: grpc.StatusCode | None = None
    text = ""

    def __enter__(self) -> Refusal:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        assert isinstance(error, grpc.RpcError), f"nothing was refused: {error}"
        self.code, self.text = error.code(), error.details()
        return True
