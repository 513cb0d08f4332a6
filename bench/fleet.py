"""Measure a fleet on one machine: what a node costs more on a worker than in the embedded one, and what slots save.

Usage: bench/fleet.py [--runs N] [--check]; --check exits 1 if a limit is broken. Each run measures both ways one after
the other, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = 30
OVERHEAD = 0.025
"""Seconds a node that going through gRPC to a worker of the same machine may cost."""
STAGES = 12
SHARE = 0.4
"""Of a worker with one slot, what four with two slots may take."""
PROGRAM = [sys.executable, "-m", "compiler"]
ROOT = Path(__file__).resolve().parent.parent
BASE = "FROM scratch AS base\nCOPY --from=busybox / /\n"
SERVING = re.compile(r" at (grpc://127\.0\.0\.1:\d+)")
TOKEN = re.compile(r"^ {2}(bgt_\S+)$", re.MULTILINE)
UP_SECONDS = 60


class Fleet:
    """A server and workers on loopback, and builds with or without them. place: an empty directory."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._ended = contextlib.ExitStack()
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("BUILDGRAPH_")}
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._busybox = self._make_busybox()
        self._builds = 0
        served = str(place / "served")
        made = self._call("serve", "token", "create", "--store", served, "--name", "x", "--scope", "read,write,execute")
        found = TOKEN.search(made.stdout)
        if found is None:
            raise SystemExit(f"no token: {made.stderr}")
        self._env["BUILDGRAPH_TOKEN"] = found[1]
        line = self._start("serve", "--store", served, "--listen", "127.0.0.1:0", "--log", str(place / "log"))
        said = SERVING.search(line)
        if said is None:
            raise SystemExit(f"the server did not start: {line}")
        self.url = said[1]

    def close(self) -> None:
        self._ended.close()

    @contextlib.contextmanager
    def workers(self, count: int, slots: int) -> Iterator[None]:
        """As long as this lasts."""
        before, self._ended = self._ended, contextlib.ExitStack()
        try:
            for number in range(count):
                name = f"w{count}-{slots}-{number}"
                store = str(self._place / f"store-{name}")
                self._start("worker", "--join", self.url, "--name", name, "--slots", str(slots), "--store", store)
            until = time.monotonic() + UP_SECONDS
            while self._call("fleet", "--remote", self.url, "--format", "json").stdout.count('"ready"') < count:
                if time.monotonic() > until:
                    raise SystemExit("the workers do not join")
                time.sleep(0.2)
            yield
        finally:
            self._ended.close()
            self._ended = before

    def build(self, name: str, dockerfile: str, *, there: bool) -> float:
        """Seconds of a whole build whose commands never ran before, with a new store on the client."""
        self._builds += 1
        context = self._place / name
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(dockerfile)
        store = self._place / f"client-{self._builds}"
        where = ["--remote", self.url, "--local-slots", "0"] if there else []
        arguments = ["build", "-q", str(context), "--build-context", f"busybox={self._busybox}", "--store", str(store)]
        began = time.perf_counter()
        done = self._call(*arguments, *where, "--build-arg", f"N={self._builds}-{os.getpid()}")
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"a build failed: {done.stderr}")
        shutil.rmtree(store, ignore_errors=True)
        return seconds

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments], cwd=ROOT, env=self._env, capture_output=True, text=True, check=False
        )

    def _start(self, *arguments: str) -> str:
        """Its first line."""
        with (self._place / "errors").open("ab") as errors:
            process = subprocess.Popen(
                [*PROGRAM, *arguments], cwd=ROOT, env=self._env, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._ended.callback(_end, process)
        assert process.stdout is not None
        return process.stdout.readline()

    def _make_busybox(self) -> Path:
        root = self._place / "busybox"
        (root / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin/busybox")
        for applet in ("sh", "true", "sleep", "touch"):
            (root / "bin" / applet).symlink_to("busybox")
        return root


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def chain(nodes: int) -> str:
    return f"{BASE}FROM base\nARG N\n" + "".join(f"RUN true && : $N {number}\n" for number in range(nodes))


def wide() -> str:
    stages = "".join(f"FROM base AS s{n}\nARG N\nRUN sleep 2 && touch /{n}\n" for n in range(STAGES))
    return f"{BASE}{stages}FROM base\n" + "".join(f"COPY --from=s{n} /{n} /\n" for n in range(STAGES))


def overhead(fleet: Fleet, runs: int) -> bool:
    """Whether the limit holds. A chain of one node is taken off, and with it what a build costs whatever it does."""
    here: list[float] = []
    there: list[float] = []
    whole: list[float] = []
    with fleet.workers(1, 2):
        for way in (False, True):
            fleet.build("warm", chain(2), there=way)
        for _ in range(runs):
            own_one, own = (fleet.build("chain", chain(count), there=False) for count in (1, NODES))
            its_one, its = (fleet.build("chain", chain(count), there=True) for count in (1, NODES))
            here.append((own - own_one) / (NODES - 1))
            there.append((its - its_one) / (NODES - 1))
            whole.append((its - own) / NODES)
    own, its = statistics.median(here), statistics.median(there)
    more = statistics.median(b - a for a, b in zip(here, there, strict=True))
    print(f"chain of {NODES} x RUN true, a node: embedded {own * 1e3:.1f} ms, ", end="")
    print(f"on a worker {its * 1e3:.1f} ms ({its / own:.2f} x)")
    broken = more > OVERHEAD
    mark = "  too slow" if broken else ""
    print(f"  overhead a node {more * 1e3:6.1f} ms (limit {OVERHEAD * 1e3:.0f} ms){mark}")
    print(f"  with what the build itself costs more: {statistics.median(whole) * 1e3:.1f} ms a node")
    return not broken


def cluster(fleet: Fleet) -> bool:
    with fleet.workers(1, 1):
        fleet.build("warm", chain(1), there=True)
        few = fleet.build("wide", wide(), there=True)
    with fleet.workers(4, 2):
        fleet.build("warm", chain(8), there=True)
        many = fleet.build("wide", wide(), there=True)
    broken = many > SHARE * few
    mark = "  too slow" if broken else ""
    print(f"{STAGES} stages of sleep 2: one worker with one slot {few:.1f} s, four with two {many:.1f} s, ", end="")
    print(f"{many / few:.0%} (limit {SHARE:.0%}){mark}")
    return not broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="buildgraph-fleet-"))
    fleet = None
    try:
        fleet = Fleet(place)
        good = [overhead(fleet, arguments.runs), cluster(fleet)]
    finally:
        if fleet is not None:
            fleet.close()
        shutil.rmtree(place, ignore_errors=True)
    return 1 if arguments.check and not all(good) else 0


if __name__ == "__main__":
    raise SystemExit(main())
