"""Machines of a team in network namespaces: `buildgraph serve` in one, builds in the others, and what a build moved."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.networks import ROOT, SERVER, Moved, Networks
from bench.slow_link import enter

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PROGRAM = [sys.executable, "-m", "compiler"]
PORT = 8980
REMOTE = f"grpc://{SERVER}:{PORT}"
BYTES = re.compile(r'^buildgraph_blob_bytes_total\{.*direction="(in|out)".*\} (\S+)$', re.MULTILINE)
BUILD_SECONDS = 1200


class Built(NamedTuple):
    """One build. seconds: from start to end. blobs: bytes of layers, listings and logs that the server gave (received)
    and took (sent), as its own metrics count them. wire: the same at the machine's interface, all else with it."""

    seconds: float
    ran: list[str]
    cached: list[str]
    warnings: list[str]
    blobs: Moved
    wire: Moved
    errors: str


class Team:
    """A server, and machines that all use it. A context manager. place: an empty directory."""

    def __init__(self, place: Path, *machines: str, delay: float | None = None, rate: float | None = None) -> None:
        self.place = place
        given = {name: value for name, value in (("delay", delay), ("rate", rate)) if value is not None}
        self.networks = Networks(*machines, **given)
        self.served = place / "served"

    def __enter__(self) -> Team:
        self.networks.__enter__()
        try:
            self._serve()
        except BaseException:
            self.networks.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self.networks.__exit__(kind, error, trace)

    def _serve(self) -> None:
        command = [*self.networks.inside("server"), *PROGRAM, "serve", "--anonymous", "write", "--store", self.served]
        with open(self.place / "server.log", "w") as log:
            self._process = subprocess.Popen(
                [*map(str, command), "--listen", f"{SERVER}:{PORT}", "--http", f"{SERVER}:{PORT + 1}"],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "serving" not in line:
            raise RuntimeError(f"the server did not start: {(self.place / 'server.log').read_text()}")

    def served_bytes(self) -> Moved:
        """Since it was started."""
        # A thread of its own stands in the server's namespace, and ends there.
        with ThreadPoolExecutor(1) as pool:
            text = pool.submit(self._metrics).result()
        counted = {"in": 0, "out": 0}
        for direction, value in BYTES.findall(text):
            counted[direction] += int(float(value))
        return Moved(received=counted["out"], sent=counted["in"])

    def _metrics(self) -> str:
        enter(self.networks.namespace("server"))
        with urllib.request.urlopen(f"http://{SERVER}:{PORT + 1}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    def build(self, machine: str, store: str, *arguments: str | Path) -> Built:
        """A build on a machine with its store of that name. Raises RuntimeError if it fails."""
        blobs, wire, started = self.served_bytes(), self.networks.quiet(machine), time.monotonic()
        done = self.call(machine, store, "build", "--remote", REMOTE, "--progress", "rawjson", *arguments)
        seconds = time.monotonic() - started
        lines = done.stderr.splitlines()
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
        errors = "\n".join(line for line in lines if not line.startswith("{"))
        if done.returncode:
            raise RuntimeError(f"the build on {machine} ended with {done.returncode}: {done.stderr[-3000:]}")
        ends = [event for event in events if event["event"] == "finished"]
        return Built(
            seconds=seconds,
            ran=[event["id"] for event in ends if event["status"] == "done"],
            cached=[event["id"] for event in ends if event["status"] == "cached"],
            warnings=[event["text"] for event in events if event["event"] == "warned"],
            blobs=self.served_bytes().since(blobs),
            wire=self.networks.moved(machine).since(wire),
            errors=errors,
        )

    def call(self, machine: str, store: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The program on a machine."""
        env = {**self._env(), "BUILDGRAPH_STORE": self.store(store)}
        return self._run(machine, [*PROGRAM, *map(str, arguments)], env=env)

    def store(self, name: str) -> str:
        return str(self.place / f"store-{name}")

    def _run(self, machine: str, command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.networks.inside(machine), *command], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
        )  # fmt: skip

    @staticmethod
    def _env() -> dict[str, str]:
        own = ("BUILDGRAPH_", "SOURCE_DATE_EPOCH", "BUILDKIT_")
        return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def image_digest(layout: Path) -> str:
    """Of the only image of an OCI layout."""
    manifests = json.loads((layout / "index.json").read_text())["manifests"]
    assert len(manifests) == 1
    return str(manifests[0]["digest"])
