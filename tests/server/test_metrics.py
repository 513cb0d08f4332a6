"""The HTTP port: what it counts, and that nobody can make it count without bounds."""

from __future__ import annotations

import http.client
import os
import time
from typing import TYPE_CHECKING

from serving import Refusal, digest_of

from cache.server.metrics import Metrics

if TYPE_CHECKING:
    from conftest import Connect, Serve


def test_it_counts_calls_bytes_hits_and_what_is_stored(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    data = os.urandom(2_000_000)
    digest = client.write(data, "main")
    action = client.publish("a", digest, namespace="main")
    for _ in range(3):
        assert client.result(action, "main") is not None
    assert client.result(digest_of(b"other"), "main") is None
    assert client.read(digest, "main") == data
    with Refusal():
        client.read(digest, "pr/7")
    count = serving.metric
    assert count('buildgraph_requests_total{method="GetActionResult",status="OK"}') == 3
    assert count('buildgraph_requests_total{method="GetActionResult",status="NOT_FOUND"}') == 1
    assert count('buildgraph_requests_total{method="Read",status="OK"}') == 1
    assert count('buildgraph_requests_total{method="Read",status="NOT_FOUND"}') == 1
    assert count('buildgraph_action_results_total{namespace="main",outcome="hit"}') == 3
    assert count('buildgraph_action_results_total{namespace="main",outcome="miss"}') == 1
    assert count('buildgraph_blob_bytes_total{direction="in",namespace="main"}') == 2_000_000
    assert count('buildgraph_blob_bytes_total{direction="out",namespace="main"}') == 2_000_000
    assert count('buildgraph_request_seconds_count{method="Write"}') == 1
    assert count('buildgraph_namespace_bytes{namespace="main"}') >= 2_000_000
    assert count('buildgraph_namespace_blobs{namespace="main"}') >= 1
    assert count("buildgraph_store_bytes") > 2_000_000
    assert count("buildgraph_disk_free_bytes") > 0
    assert count("buildgraph_streams_open") == 0
    assert count("buildgraph_calls_running") == 0


def test_streams_that_run_are_seen(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    digest = client.write(os.urandom(30_000_000))
    from buildgraph.v1 import bytestream_pb2

    request = bytestream_pb2.ReadRequest(resource_name=f"blobs/{digest.hash}/{digest.size_bytes}")
    stream = client.streams.Read(request, timeout=30)
    next(stream)
    assert serving.metric("buildgraph_streams_open") == 1
    stream.cancel()
    until = time.monotonic() + 10
    while serving.metric("buildgraph_streams_open") and time.monotonic() < until:
        time.sleep(0.05)
    assert serving.metric("buildgraph_streams_open") == 0
    assert serving.metric('buildgraph_requests_total{method="Read",status="CANCELLED"}') == 1
    assert not serving.events("refused"), "that somebody went away is no refusal"


def test_a_call_of_no_service_is_counted_as_unknown(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "read")
    for name in ("A", "B"):
        with Refusal() as refused:
            connect(serving).channel.unary_unary(f"/x.Y/{name}")(b"", timeout=10)
        assert refused.code is not None
        assert refused.code.name == "UNIMPLEMENTED"
    assert serving.metric('buildgraph_requests_total{method="unknown",status="UNIMPLEMENTED"}') == 2


def test_names_of_namespaces_fill_no_memory() -> None:
    metrics = Metrics()
    for number in range(5000):
        metrics.received(f"pr/{number}", 10)
        metrics.asked(f"pr/{number}", 1, 1)
    lines = [line for line in metrics.text().decode().splitlines() if "buildgraph_blob_bytes_total{" in line]
    assert len(lines) == 201
    assert 'buildgraph_blob_bytes_total{direction="in",namespace="(others)"} 48000.0' in lines


def test_only_what_is_there_is_answered(serve: Serve) -> None:
    serving = serve("--anonymous", "read")
    host, _, port = serving.web.partition("://")[2].rpartition(":")
    for method, path, status in (
        ("GET", "/healthz", 200), ("HEAD", "/metrics", 200), ("GET", "/no/such/page", 404), ("POST", "/healthz", 501),
        ("GET", "/../etc/passwd", 404),
    ):  # fmt: skip
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.status == status
        assert answer.headers["X-Content-Type-Options"] == "nosniff" or status == 501
        assert "Python" not in (answer.headers["Server"] or "")
        body = answer.read()
        assert not body if method == "HEAD" else body
        connection.close()
