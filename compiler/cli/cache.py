"""`buildgraph cache`: how much the store holds, and an end to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem, UsageError
from cache.lmdb_store import LmdbStore
from cache.run_dir import remove_tree, sweep
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Sequence


_PARTS = ("blobs", "data.mdb", "leases", "lock.mdb", "mounts", "runs", "snapshots")


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parser = Parser(prog="buildgraph cache", description="Show how much the store holds, or empty it.")
    parser.add_argument("action", choices=("du", "clear"), help="du: bytes by kind; clear: remove all of it")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    parsed = parser.parse_args(arguments)
    directory = parsed.store or settings.load().store
    if parsed.action == "clear":
        _clear(directory)
        return 0
    store = LmdbStore(directory)
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


def _clear(directory: str) -> None:
    """Remove everything that a store consists of, nothing else in its directory. Raises EnvironmentProblem."""
    if not os.path.exists(os.path.join(directory, "data.mdb")):
        raise UsageError(f"{directory} is no store")
    if os.geteuid() != 0:
        # Steps made files that belong to the user's subordinate ids; only inside of the namespace may they be removed.
        from worker.namespaces import enter_user_namespace

        enter_user_namespace()
    sweep(directory)
    runs = os.path.join(directory, "runs")
    if os.path.isdir(runs) and os.listdir(runs):
        raise EnvironmentProblem(f"a build is using the store {directory}", hint="try again when it has ended")
    names = [name for name in os.listdir(directory) if name in _PARTS or name.startswith("seccomp-")]
    try:
        for name in names:
            remove_tree(os.path.join(directory, name))
    except OSError as error:
        raise EnvironmentProblem(f"cannot remove {error.filename or directory}: {error.strerror}") from None


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
