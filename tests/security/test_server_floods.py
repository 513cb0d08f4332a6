"""`buildgraph serve` under callers who are many, large or slow: bounded memory, and everybody else is served."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import threading
import time
import uuid
import zlib
from typing import TYPE_CHECKING

import grpc
import pytest
import zstandard
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import team_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from measured import MB, Memory, refused_lines, resident
from serving import Refusal, Serving, digest_of, make_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serving import Client

API = "/build.bazel.remote.execution.v2."


@pytest.mark.alone
def test_whoever_has_no_token_gets_nothing_into_memory(guarded: Serving) -> None:
    """320 calls of 4 MB each, in as many threads as there are: refused before the bytes are taken."""
    request = pb.BatchUpdateBlobsRequest()
    request.requests.add(digest=digest_of(b"x"), data=bytes(4_000_000))
    message = request.SerializeToString()
    channels = [grpc.insecure_channel(guarded.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(8)]
    with Memory(guarded.process.pid) as memory:
        calls = [each.unary_unary(f"{API}ContentAddressableStorage/BatchUpdateBlobs").future(message, timeout=60) for each in channels for _ in range(40)]
        assert {each.code() for each in calls} == {grpc.StatusCode.UNAUTHENTICATED}
    for each in channels:
        each.close()
    assert memory.grown < 640 * MB, "gRPC takes what fits in its windows, no more"
    assert len(refused_lines(guarded)) == 320


def test_silent_calls_without_a_token_hold_no_thread(guarded: Serving, connect: Callable[..., Client]) -> None:
    """They are refused at once: nothing that they could say changes that."""
    end = threading.Event()

    def silent() -> Iterator[bytes]:
        end.wait(120)
        yield b""

    silence = connect(guarded).channel.stream_unary(f"{API}ActionCache/GetActionResult")
    held = [silence.future(silent()) for _ in range(200)]
    since = time.monotonic()
    assert {each.code() for each in held} == {grpc.StatusCode.UNAUTHENTICATED}
    assert time.monotonic() - since < 60
    end.set()


def test_watching_the_health_holds_few_threads(guarded: Serving, connect: Callable[..., Client], tmp_path: Path) -> None:
    """It asks for no token, and goes on for as long as the caller likes."""
    watching = [health_pb2_grpc.HealthStub(connect(guarded).channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(150)]
    codes: list[grpc.StatusCode] = []
    first = threading.Barrier(len(watching) + 1)

    def look(each: grpc.Call) -> None:
        with contextlib.suppress(grpc.RpcError):
            next(each)  # type: ignore[call-overload]
        first.wait(30)
        if not each.is_active():
            codes.append(each.code())

    threads = [threading.Thread(target=look, args=(each,)) for each in watching]
    for each in threads:
        each.start()
    first.wait(30)
    for each in threads:
        each.join()
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * (150 - 16)
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read")
    time.sleep(1.1)
    assert connect(guarded, secret).hello().low_api_version.major == 2
    for each in watching:
        each.cancel()
    until = time.monotonic() + 60
    health = health_pb2_grpc.HealthStub(connect(guarded).channel)
    while True:
        with contextlib.suppress(grpc.RpcError):
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
            break
        assert time.monotonic() < until, "the places are never free again"
        time.sleep(0.05)
    assert ("Watch", "RESOURCE_EXHAUSTED") in refused_lines(guarded)


def test_bombs_take_no_memory_and_leave_nothing(serve: Callable[..., Serving], connect: Callable[..., Client]) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    client.put(b"warm")
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 30))
    assert len(bomb) < MB
    digest = digest_of(bytes(1000))
    with Memory(serving.process.pid) as memory:
        for _ in range(3):
            request = pb.BatchUpdateBlobsRequest()
            request.requests.add(digest=digest, data=bomb, compressor=pb.Compressor.ZSTD)
            assert client.cas.BatchUpdateBlobs(request, timeout=20).responses[0].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            name = f"uploads/{uuid.uuid4()}/compressed-blobs/zstd/{digest.hash}/{digest.size_bytes}"
            with Refusal() as refused:
                client.streams.Write(iter([bs.WriteRequest(resource_name=name, data=bomb, finish_write=True)]), timeout=20)
            assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        # What its digest says is too much for one batch: it alone is refused, before it is unpacked.
        request = pb.BatchUpdateBlobsRequest()
        request.requests.add(digest=pb.Digest(hash=digest.hash, size_bytes=1 << 30), data=bomb, compressor=pb.Compressor.ZSTD)
        status = client.cas.BatchUpdateBlobs(request, timeout=20).responses[0].status
        assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert "ByteStream" in status.message
        # A record that unpacks to more than a page could ever show.
        record = team_pb2.Record(kind="builds", key="k", value=zlib.compress(bytes(200 * MB), 9))
        message = team_pb2.PutRecordsRequest(records=[record]).SerializeToString()
        with Refusal() as refused:
            client.channel.unary_unary("/buildgraph.v1.Team/PutRecords")(message, timeout=20)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert memory.grown < 100 * MB
    assert len(serving.events("refused")) == 8
    assert not list((serving.store / "runs").rglob("upload*"))


def test_a_message_that_gzip_made_small_is_refused_by_its_real_size(guarded: Serving) -> None:
    """Which gRPC itself unpacks, before anybody is asked who they are."""
    request = pb.BatchUpdateBlobsRequest()
    request.requests.add(digest=digest_of(b"x"), data=bytes(200 * MB))
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(guarded.address, options, compression=grpc.Compression.Gzip) as channel, Memory(guarded.process.pid) as memory:
        with Refusal() as refused:
            channel.unary_unary(f"{API}ContentAddressableStorage/BatchUpdateBlobs")(request.SerializeToString(), timeout=60)
        assert refused.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)
    assert memory.grown < 50 * MB


def test_messages_that_are_too_large_leave_a_line(serve: Callable[..., Serving], connect: Callable[..., Client]) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    request = pb.BatchUpdateBlobsRequest()
    request.requests.add(digest=digest_of(b"x"), data=bytes(6 * MB))
    with Refusal() as refused:
        client.cas.BatchUpdateBlobs(request, timeout=20)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    line = serving.wait_for("warning")
    assert line["text"].startswith("BatchUpdateBlobs of ipv4:127.0.0.1:")
    assert "more than 4456448 bytes" in line["text"]
    # In the middle of a stream, too.
    data = os.urandom(7 * MB)
    digest = digest_of(data)
    name = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size_bytes}"
    pieces = [bs.WriteRequest(resource_name=name, data=data[:MB]), bs.WriteRequest(write_offset=MB, data=data[MB:], finish_write=True)]
    with Refusal() as refused:
        client.streams.Write(iter(pieces), timeout=20)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"{digest.hash}/{digest.size_bytes} by anonymous broke off at {MB} bytes" in serving.wait_for("info")["text"]


@pytest.mark.slow
def test_memory_comes_back_after_many_large_calls_at_once(serve: Callable[..., Serving]) -> None:
    serving = serve("--anonymous", "write")
    request = pb.BatchUpdateBlobsRequest()
    request.requests.add(digest=digest_of(b"x"), data=bytes(4_000_000))
    message = request.SerializeToString()
    with Memory(serving.process.pid) as memory:
        channels = [grpc.insecure_channel(serving.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)]
        calls = [each.unary_unary(f"{API}ContentAddressableStorage/BatchUpdateBlobs").future(message, timeout=60) for each in channels for _ in range(40)]
        assert {each.code() for each in calls} == {grpc.StatusCode.OK}
        for each in channels:
            each.close()
    assert memory.grown < 1300 * MB, "128 threads with two copies of 4 MiB each"
    until = time.monotonic() + 20
    while resident(serving.process.pid) > 250 * MB:
        assert time.monotonic() < until, f"{resident(serving.process.pid)} bytes are kept"
        time.sleep(0.2)


def test_mere_connections_shut_nobody_out(tmp_path: Path, connect: Callable[..., Client]) -> None:
    """With the usual limit of files the server takes more than that, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("this machine allows too few open files")
    try:
        # The limit counts this process's own descriptors too, of which earlier tests may have left many open.
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 200, hard))
        serving = Serving(tmp_path, "--anonymous", "read")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    host, _, port = serving.address.partition(":")
    with contextlib.ExitStack() as held:
        held.callback(serving.end)
        silent = [held.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(500)]
        for each in silent[:100]:
            each.sendall(b"PRI * HTTP/2.0\r\n")  # the beginning of a greeting
        with Memory(serving.process.pid) as memory:
            assert connect(serving).hello().low_api_version.major == 2
            assert serving.get("/healthz") == (200, "ok\n")
        assert memory.grown < 50 * MB


@pytest.mark.slow
def test_slow_callers_are_ended(serve: Callable[..., Serving], connect: Callable[..., Client]) -> None:
    """Connections that do not greet, calls that say nothing: each has its time, and a line."""
    serving = serve("--anonymous", "write")
    host, _, port = serving.address.partition(":")
    silent = socket.create_connection((host, int(port)), 5)
    end = threading.Event()

    def wait() -> Iterator[bytes]:
        end.wait(60)
        yield b""

    held = connect(serving).channel.stream_unary(f"{API}ActionCache/GetActionResult").future(wait())
    assert held.code() is grpc.StatusCode.CANCELLED
    end.set()
    assert "sent no message and was ended" in json.dumps(serving.events("warning"))
    silent.settimeout(40)
    with contextlib.suppress(ConnectionResetError):
        while silent.recv(1000):
            pass
    silent.close()


def test_headers_that_are_too_large(guarded: Serving, connect: Callable[..., Client]) -> None:
    client = connect(guarded)
    client.metadata = [(f"x-{number}", "y" * 8000) for number in range(4)]
    with Memory(guarded.process.pid) as memory:
        for _ in range(10):
            with Refusal() as refused:
                client.hello()
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert memory.grown < 20 * MB
