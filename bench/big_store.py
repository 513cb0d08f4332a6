"""Measure what a large store costs: 100,000 records and 10 GB, sparse; plan, clean-up after a build, prune to half.

Usage: bench/big_store.py [--keep DIR]; exits 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.result import Layer, Result
from cache.store import TABLES, Batch, NewFile
from cache.usage import Usage, project_key, project_record, result_key

if TYPE_CHECKING:
    from cache.store import Table

RESULTS = 20_000
"""Each with a recipe, a use, a note of what the recipe was made of and one of its operation: with the layers some
102,000 records."""
TARS = 2000
TAR_BYTES = 5 << 20
LIMITS = {"plan": 0.150, "prune to half": 10.0, "prune to half, MB": 300.0, "cache du, MB": 300.0}
"""Seconds of whole processes, and megabytes at their peak. plan: of a file of 30 nodes."""
PLANS = 9


class Figure(NamedTuple):
    """limit: None for a figure that only informs."""

    name: str
    value: float
    limit: float | None


def fill(directory: str, results: int = RESULTS, tars: int = TARS) -> int:
    """Make the store: 5 records a result, 6 for one with a layer, in batches of many. How many records."""
    store = LmdbStore(directory)
    store.start_writer()
    now = time.time()
    projects = [f"/home/app/project-{number}" for number in range(20)]
    store.commit(Batch(records=tuple(project_record(project) for project in projects)))
    for start in range(0, results, 1000):
        blobs: dict[Digest, bytes] = {}
        files: list[NewFile] = []
        records: list[tuple[Table, str, bytes]] = []
        for number in range(start, min(start + 1000, results)):
            text = f"log of step {number}\n".encode() * 20
            log = Digest.of(text)
            blobs[log] = text
            layer = None
            if number % (results // tars) == 0:
                tar = Digest(encoding.key("tar", number), TAR_BYTES + number * 512)
                path = store.scratch("tar")
                with open(path, "wb") as file:
                    file.truncate(tar.size)
                files.append(NewFile(tar, path))
                listing = os.urandom(1500)
                blobs[Digest.of(listing)] = listing
                layer = Layer(f"sha256:{tar.hash}", encoding.key("content", number), tar, Digest.of(listing))
                records.append(("layers", layer.diff_id, encoding.canonical(layer.to_json())))
            content, recipe = encoding.key("big", number), encoding.key("recipe", number)
            result = Result(layer, log, (number * 7919 % 1000) / 10, now - number % 90 * 86_400, "ann@laptop")
            use = Usage(int(now - number % 60 * 86_400), number % 9, (project_key(projects[number % 20]),))
            records += [
                ("results", content, encoding.canonical(result.to_json())),
                ("recipes", recipe, content.encode()),
                ("uses", result_key(content), use.encode()),
                ("preimages", recipe, note(number)),
                ("places", f"op:{recipe[:32]}", encoding.canonical({"seconds": [1.5], "recipe": recipe, "file": "f"})),
            ]
        store.submit(Batch(blobs=blobs, files=tuple(files), records=tuple(records)))
    store.commit(Batch())
    with store.view() as view:
        count = sum(view.count(table) for table in TABLES)
    store.close()
    return count


def note(number: int) -> bytes:
    """As large as what a RUN's recipe is made of, and standing on another step."""
    names = [encoding.key("source", number), encoding.key("recipe", number - 1)]
    return zlib.compress(encoding.canonical([{"operation": f"step {number} " * 20}, names, os.urandom(40).hex()]), 1)


def project(directory: Path) -> Path:
    """A Dockerfile of 30 nodes."""
    directory.mkdir()
    lines = ["FROM scratch AS base", *(f"COPY f /f{number}" for number in range(14)), "FROM base"]
    lines += [f'RUN ["/bin/step", "{number}"]' for number in range(13)]
    (directory / "Dockerfile").write_text("\n".join(lines) + "\n")
    (directory / "f").write_text("x")
    return directory


def run(store: str, *arguments: str) -> tuple[float, float, str]:
    """(seconds, megabytes at the peak, what it said) of one call."""
    command = [sys.executable, "-m", "compiler", *arguments]
    environment = {**os.environ, "BUILDGRAPH_STORE": store}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} failed: {output}")
    return seconds, usage.ru_maxrss / 1024, output


def measure(place: Path, results: int = RESULTS, tars: int = TARS) -> list[Figure]:
    """All figures, in an empty directory."""
    context = str(project(place / "project"))
    store, empty = str(place / "store"), str(place / "empty")
    LmdbStore(empty).close()
    figures = [Figure("records", fill(store, results, tars), None)]
    for name, where in (("plan, empty store", empty), ("plan", store)):
        times = [run(where, "plan", context)[0] for _ in range(PLANS)][1:]
        figures.append(Figure(name, statistics.median(times), LIMITS.get(name)))
    seconds, megabytes, _ = run(store, "cache", "du")
    figures += [Figure("cache du", seconds, None), Figure("cache du, MB", megabytes, LIMITS["cache du, MB"])]
    half = str(tars * TAR_BYTES // 2)
    seconds, megabytes, _ = run(store, "cache", "prune", "--max-used-space", half)
    figures.append(Figure("prune to half", seconds, LIMITS["prune to half"]))
    figures.append(Figure("prune to half, MB", megabytes, LIMITS["prune to half, MB"]))
    left = sum(file.stat().st_size for file in Path(store, "blobs").rglob("*") if file.is_file())
    figures.append(Figure("GB left in files", left / 1e9, tars * TAR_BYTES * 0.51 / 1e9))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="DIR", help="make it there, and leave it")
    parsed = parser.parse_args()
    place = Path(parsed.keep or tempfile.mkdtemp(prefix="big-store-"))
    place.mkdir(exist_ok=True)
    try:
        figures = measure(place)
    finally:
        if not parsed.keep:
            shutil.rmtree(place)
    broken = 0
    for figure in figures:
        over = figure.limit is not None and figure.value > figure.limit
        broken += over
        limit = "" if figure.limit is None else f"  limit {figure.limit:.3f}"
        print(f"{figure.name:24} {figure.value:10.3f}{limit}{'  BROKEN' if over else ''}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
