"""Measure builds as a user would: median wall seconds of whole processes, against the limits that must hold.

Usage: bench/run.py [--runs N] [--only TEXT] [--keep DIR]; exits 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = b"lorem ipsum dolor const return function import export { } module default => require \n".split(b" ")
BIG_STORE = "a large store"
"""What `big_store.py` measures, as --only has it."""
FLEET = "a fleet"
"""The same of `fleet.py` and `scheduler.py`."""
ROOT = Path(__file__).resolve().parent.parent
SETTLE_SECONDS = 2.5
"""Files just written are hashed again by rule; let them age, as a user's have."""
YARDSTICK = "import argparse, asyncio, json, subprocess, tempfile"
"""Starting Python with these is always the same, and most of what a build with nothing to do takes is of the kind."""
YARD = 0.055
"""Median seconds of that where the limits were set, two cores of an EPYC. A slower machine has its limits scaled."""


class Case(NamedTuple):
    """limit: seconds that must hold where the yardstick takes YARD, None for a figure that only informs: on a busy disk
    it can be anything.

    prepare: before every run, not measured. arguments: of `buildgraph build`.
    """

    name: str
    limit: float | None
    prepare: Callable[[], None]
    arguments: list[str]


def yard() -> float:
    """Seconds that the yardstick takes now."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", YARDSTICK], check=True)
    return time.perf_counter() - started


class Bench:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = place / "store"
        self.env = {**os.environ, "BUILDGRAPH_STORE": str(self.store)}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._counter = 0

    def build(self, arguments: list[str]) -> float:
        started = time.perf_counter()
        done = subprocess.run(
            [str(Path(sys.executable).parent / "buildgraph"), "build", "-q", *arguments],
            env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            raise SystemExit(f"a build failed: {done.stderr}")
        return seconds

    def fresh(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)

    def project(self, name: str, dockerfile: str) -> str:
        directory = self.place / name
        directory.mkdir(exist_ok=True)
        (directory / "Dockerfile").write_text(dockerfile)
        return str(directory)

    def busybox(self) -> str:
        root = self.place / "busybox"
        if not root.exists():
            (root / "bin").mkdir(parents=True)
            shutil.copy("/bin/busybox", root / "bin/busybox")
            for applet in ("sh", "true", "sleep", "seq", "touch", "mkdir", "cat"):
                (root / "bin" / applet).symlink_to("busybox")
        return f"busybox={root}"

    def tree(self) -> Path:
        """20,000 small files, 80 MB."""
        root = self.place / "tree"
        if not root.exists():
            random.seed(1)
            for number in range(20_000):
                directory = root / f"node_modules/pkg{number // 200:03d}/lib{number // 40 % 5}"
                if number % 40 == 0:
                    directory.mkdir(parents=True)
                text = b" ".join(random.choices(WORDS, k=random.randint(40, 1600)))
                (directory / f"file{number:05d}.js").write_bytes(text + str(number).encode())
            (root / "Dockerfile").write_text("FROM scratch\nCOPY . /app\n")
            time.sleep(SETTLE_SECONDS)
        return root

    def change(self) -> None:
        self._counter += 1
        path = self.tree() / "node_modules/pkg000/lib0/file00000.js"
        path.write_text(f"changed {self._counter}")

    def big(self) -> str:
        root = self.place / "big"
        if not root.exists():
            root.mkdir()
            with (root / "data").open("wb") as file:
                for _ in range(512):
                    file.write(os.urandom(1 << 20) + bytes(1 << 20))
            (root / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
            time.sleep(SETTLE_SECONDS)
        return str(root)

    def cases(self) -> list[Case]:
        base = "FROM scratch\nCOPY --from=busybox / /\n"
        named = ["--build-context", self.busybox()]
        twenty = [self.project("twenty", base + "".join(f"RUN true && : {n}\n" for n in range(20))), *named]
        writes = [self.project("writes", base + "".join(f"RUN touch /f{n}\n" for n in range(20))), *named]
        twelve = [self.project("twelve", base + "".join(f"RUN touch /f{n}\n" for n in range(11))), *named]
        loop = "for d in $(seq 100); do mkdir /m/$d; for f in $(seq 200); do echo $f > /m/$d/$f; done; done"
        files = [self.project("files", f"{base}RUN mkdir /m; {loop}\n"), *named]
        stages = "FROM scratch AS base\nCOPY --from=busybox / /\n"
        stages += "".join(f"FROM base AS s{n}\nRUN sleep 2 && touch /{n}\n" for n in range(8))
        stages += "FROM base\n" + "".join(f"COPY --from=s{n} /{n} /{n}\n" for n in range(8))
        parallel = [self.project("parallel", stages), *named]
        tree = [str(self.tree())]

        def ready(arguments: list[str]) -> Callable[[], None]:
            def build() -> None:
                self.build(arguments)

            return build

        def changed() -> None:
            self.build(tree)
            self.change()

        return [
            Case("nothing to do, 12 steps", 0.2, ready(twelve), twelve),
            Case("20 x RUN true", 1.0, self.fresh, twenty),
            Case("20 x RUN that writes a file", None, self.fresh, writes),
            Case("COPY 20,000 small files, cold", 3.0, self.fresh, tree),
            Case("the same, nothing to do", None, ready(tree), tree),
            Case("the same, one file changed", None, changed, tree),
            Case("COPY one 1 GB file, cold", None, self.fresh, [self.big()]),
            # Most of it is the shell's own time; after mass deletes ext4 makes files five times slower.
            Case("RUN that writes 20,000 files", None, self.fresh, files),
            Case("8 stages of sleep 2, then one", None, self.fresh, parallel),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--keep", default="", help="directory for data that later calls find again")
    arguments = parser.parse_args()
    place = Path(arguments.keep or tempfile.mkdtemp(prefix="buildgraph-bench-"))
    place.mkdir(exist_ok=True)
    broken = 0
    try:
        print(f"{'case':36} {'median':>8} {'best':>8} {'limit':>8}")
        for case in Bench(place).cases():
            if arguments.only not in case.name:
                continue
            bench = Bench(place)
            times, yards = [], []
            for _ in range(arguments.runs):
                case.prepare()
                yards.append(yard())
                times.append(bench.build(case.arguments))
            median = statistics.median(times)
            factor = max(1.0, statistics.median(yards) / YARD)
            slow = case.limit is not None and median > case.limit * factor
            broken += slow
            limit = "" if case.limit is None else f"{case.limit * factor:7.2f}s"
            mark = "  too slow" if slow else ""
            if case.limit is not None and factor > 1:
                mark += f"  (limit x {factor:.2f}: a slow machine)"
            print(f"{case.name:36} {median:7.3f}s {min(times):7.3f}s {limit:>8}{mark}", flush=True)
        if arguments.only in BIG_STORE:
            print(f"\n{BIG_STORE}", flush=True)
            # Its limits are near what it takes on a quiet machine, so what it says is shown, and not counted.
            subprocess.run([sys.executable, Path(__file__).with_name("big_store.py")], check=False)
        if arguments.only in FLEET:
            print(f"\n{FLEET}", flush=True)
            # What a node costs more on a worker is a difference of two times, so it is shown, and not counted, either.
            subprocess.run([sys.executable, Path(__file__).with_name("fleet.py"), "--runs", "3"], check=False)
            # What counts here is computed, or the scheduler's own time.
            done = subprocess.run([sys.executable, "-m", "bench.scheduler"], cwd=ROOT, check=False)
            broken += done.returncode != 0
    finally:
        if not arguments.keep:
            shutil.rmtree(place, ignore_errors=True)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
