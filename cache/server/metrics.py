"""Metrics: what Prometheus reads, and what a page may show. The only file that imports prometheus_client."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from cache.disk_usage import free_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from cache.server.quotas import Quotas

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: a lookup takes less than a millisecond, an upload may take a minute."""
MAX_NAMESPACES = 200
"""Namespaces with figures of their own; all others are one, so that nobody can fill the memory with names."""
OTHERS = "(others)"
DEFAULT = "(default)"


class Metrics:
    """A `Meter` and a `Watcher`. May be used by several threads at once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._labels: dict[str, str] = {}
        self._calls: dict[tuple[str, str], Counter] = {}
        self._times: dict[str, Histogram] = {}
        self._moved: dict[tuple[str, str], Counter] = {}
        self._calls_total = Counter(
            "buildgraph_requests", "Calls by method and gRPC status.", ("method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "buildgraph_request_seconds", "How long calls took.", ("method",), buckets=BUCKETS, registry=self.registry
        )
        self._bytes = Counter(
            "buildgraph_blob_bytes", "Bytes of blobs.", ("namespace", "direction"), registry=self.registry
        )
        self._results = Counter(
            "buildgraph_action_results", "Results looked for.", ("namespace", "outcome"), registry=self.registry
        )
        self._open = Gauge("buildgraph_streams_open", "Streams that run now.", registry=self.registry)
        self._running = Gauge("buildgraph_calls_running", "Calls that run now.", registry=self.registry)
        self._gc_runs = Counter("buildgraph_gc_runs", "Clean-ups.", registry=self.registry)
        self._gc_bytes = Counter("buildgraph_gc_freed_bytes", "Bytes that clean-ups gave back.", registry=self.registry)
        self._gc_items = Counter("buildgraph_gc_removed", "What clean-ups removed.", ("kind",), registry=self.registry)
        self._gc_seconds = Gauge("buildgraph_gc_last_seconds", "Time of the last clean-up.", registry=self.registry)
        started = Gauge("buildgraph_start_time_seconds", "When the server started.", registry=self.registry)
        started.set(time.time())

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)

    # a Meter

    def received(self, namespace: str, size: int) -> None:
        self._count(self._bytes, namespace, "in", size)

    def sent(self, namespace: str, size: int) -> None:
        self._count(self._bytes, namespace, "out", size)

    def asked(self, namespace: str, hits: int, misses: int) -> None:
        if hits:
            self._count(self._results, namespace, "hit", hits)
        if misses:
            self._count(self._results, namespace, "miss", misses)

    def _count(self, counter: Counter, namespace: str, what: str, count: int) -> None:
        key = namespace, what
        child = self._moved.get(key)
        if child is None:
            child = counter.labels(self._label(namespace), what)
            if len(self._moved) < 8 * MAX_NAMESPACES:
                self._moved[key] = child
        child.inc(count)

    def _label(self, namespace: str) -> str:
        with self._lock:
            known = self._labels.get(namespace)
            if known is None:
                if len(self._labels) >= MAX_NAMESPACES:
                    return OTHERS
                known = self._labels[namespace] = namespace or DEFAULT
            return known

    # a Watcher

    def began(self, *, stream: bool) -> None:
        self._running.inc()
        if stream:
            self._open.inc()

    def ended(self, method: str, status: str, seconds: float, *, stream: bool) -> None:
        self._running.dec()
        if stream:
            self._open.dec()
        key = method, status
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = self._calls_total.labels(method, status)
        calls.inc()
        times = self._times.get(method)
        if times is None:
            times = self._times[method] = self._seconds.labels(method)
        times.observe(seconds)

    # what others count

    def figure(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when Prometheus asks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def times(self, name: str, text: str) -> Callable[[float], None]:
        """A histogram of seconds, and what to call with each of them."""
        return Histogram(name, text, buckets=BUCKETS, registry=self.registry).observe

    def counter(self, name: str, text: str, label: str) -> Callable[[str], None]:
        """A counter, and what to call with the label of each that is to be counted. There must be few labels."""
        counter = Counter(name, text, (label,), registry=self.registry)
        return lambda value: counter.labels(value).inc()

    # clean-ups

    def cleaned(self, freed: int, actions: int, blobs: int, seconds: float) -> None:
        self._gc_runs.inc()
        self._gc_bytes.inc(freed)
        self._gc_items.labels("action").inc(actions)
        self._gc_items.labels("blob").inc(blobs)
        self._gc_seconds.set(seconds)

    def watch_store(self, directory: str, quotas: Quotas) -> None:
        """Add what the store holds."""
        self.registry.register(_StoreFigures(directory, quotas))


class _StoreFigures:
    """Read from the quotas' own figures when Prometheus asks: no scan of the store."""

    def __init__(self, directory: str, quotas: Quotas) -> None:
        self._directory = directory
        self._quotas = quotas

    def collect(self) -> Iterator[Metric]:
        sizes = GaugeMetricFamily("buildgraph_namespace_bytes", "Bytes by namespace.", labels=["namespace"])
        counts = GaugeMetricFamily("buildgraph_namespace_blobs", "Blobs by namespace.", labels=["namespace"])
        rest = [0, 0]
        for number, (name, used) in enumerate(self._quotas.usage().items()):
            if number >= MAX_NAMESPACES:
                rest[0] += used.bytes
                rest[1] += used.blobs
                continue
            sizes.add_metric([name or DEFAULT], used.bytes)
            counts.add_metric([name or DEFAULT], used.blobs)
        if rest[1]:
            sizes.add_metric([OTHERS], rest[0])
            counts.add_metric([OTHERS], rest[1])
        yield sizes
        yield counts
        yield GaugeMetricFamily("buildgraph_store_bytes", "Bytes of the whole store.", value=self._quotas.total)
        try:
            free = free_bytes(self._directory)
        except OSError:
            return
        yield GaugeMetricFamily("buildgraph_disk_free_bytes", "Bytes free on the store's disk.", value=free)
