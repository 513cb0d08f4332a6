"""Measure what a large store costs: 100,000 records and 10 GB, sparse; plan of what was built in it, prune to half.

Usage: bench/big_store.py [--keep DIR]; exits 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import json
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
LIMITS = {"plan": 0.150, "plan, MB": 100.0, "prune to half": 10.0, "prune to half, MB": 300.0, "cache du, MB": 300.0}
"""Seconds of whole processes, and megabytes at their peak. plan: of a file of 30 nodes that was built there."""
PLANS = 9
COPIES, RUNS = 12, 12
STEPS = COPIES + RUNS + 1
"""Of the file that is planned; with its sources and stages, 30 nodes."""


_LAUNCH = """import os, sys, time
began = time.perf_counter()
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
code, seconds = os.waitstatus_to_exitcode(status), time.perf_counter() - began
print(flush=True)
print([code, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss], flush=True)
"""


class Figure(NamedTuple):
    """limit: None for a figure that only informs."""

    name: str
    value: float
    limit: float | None


class Call(NamedTuple):
    """What one call of the program took. seconds: until it ended. computed: of these. megabytes: at the peak."""

    seconds: float
    computed: float
    megabytes: float
    output: str


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


def project(directory: Path) -> list[str]:
    """A Dockerfile of 30 nodes: how to build it, or plan it."""
    root, context = directory / "busybox", directory / "project"
    (root / "bin").mkdir(parents=True)
    context.mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    lines = ["FROM scratch AS base", "COPY --from=busybox / /", *(f"COPY f /f{number}" for number in range(COPIES))]
    lines += ["FROM base", *(f'RUN ["/bin/busybox", "true", "{number}"]' for number in range(RUNS))]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    (context / "f").write_text("x")
    return [str(context), "--build-context", f"busybox={root}"]


def run(store: str, *arguments: str) -> Call:
    """One call of the program, which must succeed."""
    command = [sys.executable, "-m", "compiler", *arguments]
    environment = {**os.environ, "BUILDGRAPH_STORE": store}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # Where a process is made by a large one, its own peak is not less than that one's: a small one is put between.
    launch = [sys.executable, "-S", "-c", _LAUNCH, *command]
    process = subprocess.run(
        launch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    output, _, figures = process.stdout.rstrip("\n").rpartition("\n")
    code, seconds, computed, kilobytes = json.loads(figures)
    if code != 0:
        raise SystemExit(f"{' '.join(arguments)} failed: {output}")
    return Call(seconds, computed, kilobytes / 1024, output)


def measure(place: Path, results: int = RESULTS, tars: int = TARS) -> list[Figure]:
    """All figures, in an empty directory. The same file is planned in a store that has nothing else, for comparison."""
    words = project(place)
    alone, store = str(place / "alone"), str(place / "store")
    run(alone, "build", *words, "-q")
    # Built first: what tidies up after a build would be at work in the large one.
    shutil.copytree(alone, store, symlinks=True)
    figures = [Figure("records", fill(store, results, tars), None), *plans(words, alone, store)]
    du = run(store, "cache", "du")
    figures += [Figure("cache du", du.seconds, None), Figure("cache du, MB", du.megabytes, LIMITS["cache du, MB"])]
    half = str(tars * TAR_BYTES // 2)
    prune = run(store, "cache", "prune", "--max-used-space", half)
    figures.append(Figure("prune to half", prune.seconds, LIMITS["prune to half"]))
    figures.append(Figure("prune to half, computed", prune.computed, LIMITS["prune to half"]))
    figures.append(Figure("prune to half, MB", prune.megabytes, LIMITS["prune to half, MB"]))
    left = sum(file.stat().st_size for file in Path(store, "blobs").rglob("*") if file.is_file())
    figures.append(Figure("GB left in files", left / 1e9, tars * TAR_BYTES * 0.51 / 1e9))
    return figures


def plans(words: list[str], alone: str, store: str) -> list[Figure]:
    """Of plans in the two stores, in turn, so that both have the same neighbours."""
    calls: dict[str, list[Call]] = {alone: [], store: []}
    for _ in range(PLANS):
        for where, made in calls.items():
            made.append(run(where, "plan", *words))
    figures = []
    for name, where in (("plan, store of its own", alone), ("plan", store)):
        made = calls[where][1:]
        figures.append(Figure(name, statistics.median(call.seconds for call in made), LIMITS.get(name)))
        figures.append(Figure(f"{name}, computed", statistics.median(call.computed for call in made), None))
        megabytes = max(call.megabytes for call in made)
        figures.append(Figure(f"{name}, MB", megabytes, LIMITS.get(f"{name}, MB")))
    summary = json.loads(run(store, "plan", *words, "--format", "json").output)["summary"]
    return [*figures, Figure("plan, steps that hit", summary["hits"], None)]


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
