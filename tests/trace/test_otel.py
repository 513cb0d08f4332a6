"""OpenTelemetry: what a collector gets of a build, and that none is needed."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from compiler.progress.events import Announced, Ended, Finished, NodeInfo, Started
from compiler.trace import otel
from compiler.trace.chronicle import chronicle

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Takes spans over HTTP. status: that it answers with."""

    def __init__(self, status: int = 200) -> None:
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    data = gzip.decompress(data)
                outer.requests.append((self.path, ExportTraceServiceRequest.FromString(data)))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def spans(self) -> list[Any]:
        return [span for _, request in self.requests for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]


def values(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_collector_gets_the_spans_of_a_build(program: Program, collector: Collector) -> None:
    program.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "TRACEPARENT": f"00-{TRACE}-{PARENT}-01"}
    program.build(program.project(BASE + "RUN sleep 0.2\nRUN exit 3\n")).failed(1)
    assert {path for path, _ in collector.requests} == {"/v1/traces"}
    spans = collector.spans
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    (root,) = [span for span in spans if span.name == "buildgraph build"]
    assert root.parent_span_id.hex() == PARENT
    rest = [span for span in spans if span is not root]
    assert {span.parent_span_id for span in rest} == {root.span_id}
    steps = {values(span)["buildgraph.node"]: span for span in rest if "buildgraph.node" in values(span)}
    assert {"base.1", "1.1", "1.2"} == set(steps)
    slept = steps["1.1"]
    assert slept.end_time_unix_nano - slept.start_time_unix_nano > 200_000_000
    assert abs(slept.start_time_unix_nano / 1e9 - time.time()) < 60
    assert values(slept) | {"buildgraph.kind": "run", "buildgraph.status": "ran", "buildgraph.critical": True} == values(slept)
    assert steps["1.2"].status.code == 2
    assert root.status.code == 2
    (resource,) = {each.value.string_value for _, request in collector.requests for each in request.resource_spans[0].resource.attributes if each.key == "service.name"}
    assert resource == "buildgraph"


def test_the_endpoint_for_traces_alone_and_what_turns_it_off(program: Program, collector: Collector) -> None:
    project = program.project(BASE + "RUN true\n")
    program.env |= {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.address}/here", "OTEL_SDK_DISABLED": "true"}
    program.build(project).ok()
    assert not collector.requests
    del program.env["OTEL_SDK_DISABLED"]
    program.build(project).ok()
    assert {path for path, _ in collector.requests} == {"/here"}
    assert {values(span)["buildgraph.status"] for span in collector.spans if "buildgraph.node" in values(span)} == {"cached"}


def test_a_collector_that_is_not_there_is_a_warning(program: Program) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        program.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        ran = program.build(program.project(BASE + "RUN true\n")).ok()
    assert time.monotonic() - began < 20
    (warning,) = [event["text"] for event in ran.events if event["event"] == "warned" and "OpenTelemetry" in event["text"]]
    assert "could not be sent" in warning
    assert "secret" not in warning
    assert "secret" not in ran.stderr
    assert not ran.stderr.strip(), "nothing else is said"


def test_another_protocol_is_a_warning_that_says_so(program: Program) -> None:
    program.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    ran = program.build(program.project(BASE + "RUN true\n")).ok()
    (warning,) = [event["text"] for event in ran.events if event["event"] == "warned"]
    assert "only http/protobuf" in warning


def test_without_the_packages_a_warning_says_what_to_install(program: Program) -> None:
    # A package of that name that cannot be imported stands in front of the real one.
    blocked = program.root / "blocked" / "opentelemetry"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('not installed')\n")
    program.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "PYTHONPATH": str(blocked.parent)}
    ran = program.build(program.project(BASE + "RUN true\n")).ok()
    (warning,) = [event["text"] for event in ran.events if event["event"] == "warned"]
    assert "pip install 'buildgraph[otel]'" in warning


def test_many_spans_go_in_several_requests_and_a_slow_collector_costs_seconds_only(collector: Collector) -> None:
    count = 1_200
    nodes = Announced(tuple(NodeInfo(f"a.{number}", number, "RUN", "a", "run") for number in range(count)))
    events: list[Any] = [(1.0, nodes)]
    for number in range(count):
        events += [(2.0, Started(f"a.{number}")), (3.0, Finished(f"a.{number}", "done", 0.0, None, ""))]
    timeline = chronicle([*events, (4.0, Ended(True, 3.0, "", 0, count, ""))], 1.0)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        assert otel.send(timeline, environment, 60) == ""
    assert len(collector.spans) == count + 2
    assert len(collector.requests) == 3
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent, pytest.MonkeyPatch.context() as patch:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
        began = time.monotonic()
        assert "could not be sent" in otel.send(timeline, environment, 0.5)
        assert time.monotonic() - began < 15
