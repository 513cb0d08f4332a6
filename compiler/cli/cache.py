"""`buildgraph cache`: how much the store holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.lmdb_store import LmdbStore
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parser = Parser(prog="buildgraph cache", description="Show how much the store holds.")
    parser.add_argument("action", choices=("du",), help="du: bytes by kind")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    parsed = parser.parse_args(arguments)
    store = LmdbStore(parsed.store or settings.load().store)
    try:
        rows = [
            ("results of steps", f"{len(store.scan('results'))}"),
            ("images by name", f"{len(store.scan('names'))}"),
            ("layers and large blobs", _human(_disk(os.path.join(store.directory, "blobs")))),
            ("records and small blobs", _human(_disk(os.path.join(store.directory, "data.mdb")))),
            ("prepared for mounting", _human(_disk(os.path.join(store.directory, "snapshots")))),
            ("cache mounts", _human(_disk(os.path.join(store.directory, "mounts")))),
        ]
    finally:
        store.close()
    lines = [f"store {store.directory}", *(f"  {name:24} {value:>10}" for name, value in rows)]
    say("".join(f"{line}\n" for line in lines))
    return 0


def _disk(path: str) -> int:
    """Bytes on disk at and below a path, every file counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    pending = [path]
    while pending:
        current = pending.pop()
        try:
            status = os.lstat(current)
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
            if os.path.isdir(current) and not os.path.islink(current):
                pending += [os.path.join(current, name) for name in os.listdir(current)]
        except OSError:
            continue
    return total


def _human(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
