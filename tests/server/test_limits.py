"""What one token, one namespace, one message may take; beyond it RESOURCE_EXHAUSTED, with what to do."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import grpc
import pytest
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
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "small has stored" in refused.text
    assert "1.0 MiB" in refused.text
    digest = digest_of(b"y" * 500_000)
    request = pb.BatchUpdateBlobsRequest()
    request.requests.add(digest=digest, data=b"y" * 500_000)
    with Refusal() as refused:
        answer = client.cas.BatchUpdateBlobs(request, metadata=client.metadata)
        assert answer.responses[0].status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        raise _Refused
    connect(serving, large).write(os.urandom(900_000))
    serving.stop()
    # It is counted from what is there, not from what was said in between.
    with Refusal() as refused:
        connect(serve(), small).write(os.urandom(900_000))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED


class _Refused(grpc.RpcError):
    """One of a batch was."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return ""


@pytest.mark.slow
def test_uploads_that_failed_do_not_count(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read,write", "--max-bytes", "2m")
    client = connect(serve(), secret)
    for _ in range(2):
        request = pb.BatchUpdateBlobsRequest()
        request.requests.add(digest=digest_of(b"x" * 900_000), data=b"y" * 900_000)
        client.cas.BatchUpdateBlobs(request, metadata=client.metadata)
    until = time.monotonic() + 15
    while time.monotonic() < until:
        try:
            client.write(os.urandom(1_500_000))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            time.sleep(0.5)
        else:
            return
    raise AssertionError("what was refused counts for ever")


def test_a_token_may_ask_so_often(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "slow", "--max-rate", "5")
    serving = serve("--anonymous", "read")
    client = connect(serving, secret)
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
        connect(serving).missing(digest)  # others are not held up
    served = outcomes.count("")
    assert 10 <= served <= 22, "saved up 10, and 5 a second"
    assert "slow may make 5 requests a second; wait 0.2 s" in next(text for text in outcomes if text)


def test_a_token_may_send_messages_so_large(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "thin", "--scope", "read,write", "--max-message", "100k")
    serving = serve()
    client = connect(serving, secret)
    client.put(b"x" * 90_000)
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
    with Refusal() as refused:
        client.write(os.urandom(1_500_000), "pr/7")
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "namespace 'pr/7' is full (2.0 MiB)" in refused.text
    with Refusal() as refused:
        client.write(os.urandom(1_100_000))
    assert "the default namespace is full (1.0 MiB)" in refused.text


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
