"""Otel: a timeline as OpenTelemetry spans, sent by OTLP over HTTP. The only file that imports opentelemetry."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from compiler.trace.endpoints import ENDPOINTS
from compiler.trace.timeline import HERE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiler.trace.timeline import Bar, Timeline

PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SEND_SECONDS = 5.0
"""That a build waits at its end for a collector, in all."""
BATCH = 512
"""Spans of one request: a collector takes 4 MiB, and a span has about 1 KiB."""
INSTALL = "pip install 'buildgraph[otel]'"


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment names an endpoint, and does not say that it is not meant."""
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    off = off or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none"
    return not off and any(environment.get(name, "").strip() for name in ENDPOINTS)


def endpoint_problem(environment: Mapping[str, str]) -> str:
    """Why spans cannot be sent, with what to do about it; "" if they can."""
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol.strip() != "http/protobuf":
        return f"OpenTelemetry: spans are not sent, since only http/protobuf is spoken here, and not {protocol}"
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        return f"OpenTelemetry: spans are not sent, since its packages are not installed; install them with {INSTALL}"
    return ""


def send(timeline: Timeline, environment: Mapping[str, str], seconds: float = SEND_SECONDS) -> str:
    """Send the spans, and wait for that, so long at most. What went wrong, "" if nothing did."""
    problems: list[str] = []

    def work() -> None:
        try:
            problems.append(_send(timeline, environment, seconds))
        except Exception as error:  # noqa: BLE001  # nothing in there is worth a build
            problems.append(f"{type(error).__name__}: {error}")

    # Of a daemon thread nobody waits at the end of the program.
    thread = threading.Thread(target=work, name="otel", daemon=True)
    thread.start()
    thread.join(seconds)
    where = next(environment[name] for name in ENDPOINTS if environment.get(name, "").strip())
    found = problems[0] if problems else f"it took longer than {seconds:g} s"
    return f"OpenTelemetry: spans could not be sent to {_without_password(where)}: {found}" if found else ""


def _send(timeline: Timeline, environment: Mapping[str, str], seconds: float) -> str:
    import logging

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    # What it says about a collector that is not there is said by us, once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(timeout=seconds)
    try:
        spans = _spans(timeline, environment)
        for start in range(0, len(spans), BATCH):
            if exporter.export(spans[start : start + BATCH]) is not SpanExportResult.SUCCESS:
                return "nobody took them there"
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]
    return ""


def _spans(timeline: Timeline, environment: Mapping[str, str]) -> Sequence[Any]:
    """One for the build, below it one a bar. Empty if the parent is not sampled."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    kept = InMemorySpanExporter()
    own = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "buildgraph"}
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("buildgraph")
    names = {"traceparent": "TRACEPARENT", "tracestate": "TRACESTATE"}
    carrier = {key: environment[name] for key, name in names.items() if environment.get(name)}
    parent = TraceContextTextMapPropagator().extract(carrier)
    root = tracer.start_span("buildgraph build", parent, start_time=_nanos(timeline.began))
    root.set_attributes(
        {
            "buildgraph.ok": timeline.ok, "buildgraph.image": timeline.digest, "buildgraph.hits": timeline.hits,
            "buildgraph.ran": timeline.ran, "buildgraph.critical_path": list(timeline.critical),
        }
    )  # fmt: skip
    inside = trace.set_span_in_context(root, parent)
    critical = frozenset(timeline.critical)
    for bar in timeline.bars:
        span = tracer.start_span(bar.name, inside, start_time=_nanos(bar.start), attributes=_attributes(bar, critical))
        if bar.status == "failed":
            span.set_status(Status(StatusCode.ERROR, bar.note or "it failed"))
        span.end(_nanos(bar.end))
    if not timeline.ok:
        root.set_status(Status(StatusCode.ERROR, "the build failed"))
    root.end(_nanos(timeline.ended))
    return kept.get_finished_spans()


def _attributes(bar: Bar, critical: frozenset[str]) -> dict[str, str | float | bool]:
    found: dict[str, str | float | bool] = {
        "buildgraph.kind": bar.kind, "buildgraph.status": "ran" if bar.status == "done" else bar.status
    }  # fmt: skip
    if bar.node:
        found |= {
            "buildgraph.node": bar.node, "buildgraph.key": bar.key, "buildgraph.reason": bar.reason,
            "buildgraph.why": bar.why, "buildgraph.worker": bar.worker or HERE,
            "buildgraph.waited_seconds": bar.waited,
            "buildgraph.critical": bar.node in critical and bar.status not in ("cached", "again", "late"),
        }  # fmt: skip
    return found


def _nanos(seconds: float) -> int:
    return round(seconds * 1e9)


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
