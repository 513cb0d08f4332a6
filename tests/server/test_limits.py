"""What one token, one namespace, one message may take; beyond it a refusal that says what to do."""

from __future__ import annotations

import os
import socket
import time
import uuid
from typing import TYPE_CHECKING

import grpc
import pytest
from buildgraph.v1 import bytestream_pb2
from buildgraph.v1 import remote_execution_pb2 as pb
from serving import Refusal, digest_of, make_token

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect, Serve


def test_a_token_may_store_so_many_bytes(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    store = tmp_path / "served"
    small = make_token(store, "--name", "small", "--scope", "read,write", "--max-bytes", "1m")
    large = make_token(store, "--name", "large", "--scope", "read,write")
    serving = serve()
    client = connect(serving, small)
    data = os.urandom(900_000)
    client.write(data)
    client.write(data)  # which is there already
    with Refusal() as refused:
        client.write(os.urandom(900_000))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION, "waiting does not help"
    assert "small has stored 878.9 KiB of 1.0 MiB; 878.9 KiB more do not fit; ask whoever" in refused.text
    with Refusal() as refused:
        client.put(b"y" * 500_000)
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    client.put(b"y" * 100_000)  # that fits
    connect(serving, large).write(os.urandom(900_000))
    serving.stop()
    # It is counted from what is there, not from what was said in between.
    with Refusal() as refused:
        connect(serve(), small).write(os.urandom(900_000))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION


def test_uploads_that_failed_do_not_count(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read,write", "--max-bytes", "2m")
    client = connect(serve(), secret)
    large = digest_of(b"x" * 1_900_000)
    for size in (1, 900_000, 900_000):
        request = pb.BatchUpdateBlobsRequest()
        request.requests.add(digest=large, data=b"y" * size)
        answer = client.cas.BatchUpdateBlobs(request, metadata=client.metadata)
        assert answer.responses[0].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    name = f"uploads/{uuid.uuid4()}/blobs/{large.hash}/{large.size_bytes}"
    part = bytestream_pb2.WriteRequest(resource_name=name, data=b"y" * 100_000)
    client.streams.Write(iter([part]), metadata=client.metadata, timeout=20)  # breaks off
    part.finish_write = True
    with Refusal() as refused:
        client.streams.Write(iter([part]), metadata=client.metadata, timeout=20)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    chunk = client.put(b"y" * 100_000)
    splice = pb.SpliceBlobRequest(blob_digest=large, chunk_digests=[chunk] * 19)
    with Refusal() as refused:
        client.cas.SpliceBlob(splice, metadata=client.metadata, timeout=20)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    # At once: none of it holds anything any more.
    client.write(os.urandom(1_800_000))


def test_one_liar_of_a_batch_fails_alone(serve: Serve, connect: Connect) -> None:
    client = connect(serve("--anonymous", "write", "--max-used-space", "100m"))
    good = [b"good %d" % number for number in range(3)]
    request = pb.BatchUpdateBlobsRequest()
    for compressor in (pb.Compressor.IDENTITY, pb.Compressor.ZSTD):
        lie = pb.Digest(hash="a" * 64, size_bytes=512 << 30)
        request.requests.add(digest=lie, data=b"x", compressor=compressor)
    for data in good:
        request.requests.add(digest=digest_of(data), data=data)
    answer = client.cas.BatchUpdateBlobs(request, timeout=20)
    wrong = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [each.status.code for each in answer.responses] == [wrong, wrong, 0, 0, 0]
    assert client.missing(*map(digest_of, good)) == []


def test_what_comes_from_another_namespace_counts_in_this_one_and_for_nobody(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    store = tmp_path / "served"
    main = make_token(store, "--name", "main", "--scope", "read,write", "--namespace", "main")
    pr = make_token(store, "--name", "pr", "--grant", "read:main", "--grant", "read,write:pr/*", "--max-bytes", "200k")
    serving = serve("--namespace-limit", "pr/*=2m")
    ours, theirs = connect(serving, main), connect(serving, pr)
    blobs = [os.urandom(900_000) for _ in range(4)]
    digests = [ours.write(blob, "main") for blob in blobs]
    for number, digest in enumerate(digests):
        missing = theirs.missing(digest, namespace="pr/7")
        assert bool(missing) == (number > 2), "the third goes beyond the limit, then it is full"
    assert theirs.read(digests[0], "pr/7") == blobs[0]
    with Refusal() as refused:
        theirs.publish("compile", digests[3], namespace="pr/7")
    assert "missing" in refused.text
    assert serving.metric('buildgraph_namespace_bytes{namespace="pr/7"}') == 2_700_000
    # What it took over is not what it stored.
    theirs.put(b"x" * 150_000, "pr/8")
    with Refusal() as refused:
        theirs.write(os.urandom(900_000), "pr/8")
    assert "pr has stored 146.5 KiB of 200.0 KiB" in refused.text


def test_a_token_may_ask_so_often(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "slow", "--max-rate", "5")
    serving = serve("--anonymous", "read")
    client, other = connect(serving, secret), connect(serving)
    digest = digest_of(b"x")
    outcomes = []
    began = time.monotonic()
    while time.monotonic() - began < 2:
        try:
            client.missing(digest)
            outcomes.append("")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            outcomes.append(error.details())
        other.missing(digest)  # others are not held up
    took = time.monotonic() - began
    served = outcomes.count("")
    assert 10 <= served <= 12 + 5 * took, "saved up 10, and 5 a second"
    assert "slow may make 5 requests a second; wait 0.2 s" in next(text for text in outcomes if text)


def test_a_token_may_send_messages_so_large(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "thin", "--scope", "read,write", "--max-message", "100k")
    serving = serve()
    client = connect(serving, secret)
    client.put(b"x" * 90_000)
    most = client.hello().cache_capabilities.max_batch_total_size_bytes
    assert 64_000 < most < 102_400
    client.put(os.urandom(most))
    for attempt in (lambda: client.put(b"x" * 110_000), lambda: client.write(b"x" * 110_000)):
        with Refusal() as refused:
            attempt()
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "this token may send 102400" in refused.text
    assert [line["who"] for line in serving.events("refused")] == ["thin", "thin"]


@pytest.mark.slow
def test_a_message_beyond_what_anybody_may_send_is_refused_and_costs_no_memory(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    client.put(b"warm")
    before = resident(serving.process.pid)
    for _ in range(24):
        with Refusal() as refused:
            client.put(bytes(20 << 20))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Of 480 MiB. What was freed is kept for the next calls for some seconds.
    assert resident(serving.process.pid) - before < 192 << 20
    client.put(b"still there")


def test_a_namespace_that_is_full_takes_no_more_until_it_was_cleaned_up(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write", "--namespace-limit", "pr/*=2m", "--namespace-limit", "=1m")
    client = connect(serving)
    client.write(os.urandom(1_500_000), "pr/7")
    client.write(os.urandom(1_500_000), "pr/8")  # each of them has its own
    client.write(os.urandom(3_000_000), "main")  # no limit fits
    client.write(os.urandom(1_500_000), "pr/7")  # it goes beyond; what is old makes room for it, if there is any
    with Refusal() as refused:
        client.write(os.urandom(1_500_000), "pr/7")
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "namespace 'pr/7' is full: 2.9 MiB of 2.0 MiB; 1.4 MiB more do not fit; it is being cleaned up" in refused.text
    with Refusal() as refused:
        client.write(os.urandom(1_100_000))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION, "no clean-up makes room for that"
    assert "the default namespace may have 1.0 MiB; 1.0 MiB more never fit" in refused.text


@pytest.mark.slow
def test_slow_requests_at_the_http_port_hold_nobody_up(serve: Serve) -> None:
    serving = serve("--anonymous", "read")
    host, _, port = serving.web.partition("://")[2].rpartition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(40)]
    for each in slow[:4]:
        each.sendall(b"GET / HTTP/1.1\r\n")
    assert serving.get("/healthz") == (200, "ok\n")
    for each in slow:
        each.close()
    assert serving.stop() == (0, "")


def resident(pid: int) -> int:
    """Bytes of memory."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
