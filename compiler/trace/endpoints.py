"""Variables that say where spans go. By themselves, so that a build without them imports nothing that makes spans."""

from __future__ import annotations

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
