"""Records of builds as clients publish them, and as nobody should."""

from __future__ import annotations

import time
from typing import Any

from cache.build_record import BesideRecord, BuildRecord, NodeRecord, new_key

EVIL = '</title><script>alert(1)</script><img src=x onerror=alert(2)>"\'&\u202e\x1b[31m\udc80 {{ 7*7 }} {% raw %}'


def node(name: str, *inputs: str, status: Any = "ran", seconds: float = 1.0, **fields: Any) -> NodeRecord:
    return NodeRecord(name, f"RUN make {name}", status, "", "ab" * 32, seconds=seconds, inputs=inputs)._replace(**fields)


def build(*nodes: NodeRecord, started: float | None = None, **fields: Any) -> BuildRecord:
    """Of one stage on an image, unless nodes are given."""
    when = time.time() if started is None else started
    nodes = nodes or (node("app.1", "image:base", status="cached"), node("app.2", "app.1", seconds=3.5))
    beside = (BesideRecord("image:base", "image", "base:1"),)
    return BuildRecord(
        new_key(when), "shop", "f" * 32, "app", "linux/amd64", when, 4.0, True, "ann@laptop", "", nodes, beside
    )._replace(**fields)


def row(record: BuildRecord, namespace: str = "main") -> tuple[str, str, bytes]:
    _, key, value = record.encode()
    return namespace, key, value
