"""A cluster whose machines have addresses of their own: a server, workers and clients, each a program with a store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from buildgraph.v1 import fleet_pb2, fleet_pb2_grpc

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "build"))
sys.path.insert(0, str(Path(__file__).parent.parent / "server"))

from program import Program, Ran
from serving import make_token
from wires import Wires

from cache.run_dir import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
HASTY, LIAR = (str(Path(__file__).parent / name) for name in ("hasty.py", "liar.py"))
PORT = 8980
UP_SECONDS = 60.0
BASE = "FROM scratch AS base\nCOPY --from=busybox / /\n"
EPOCH = ("--build-arg", "SOURCE_DATE_EPOCH=1700000000")
THERE, HERE = ("--local-slots", "0"), ("--local-slots", "1")


class Running:
    """A program on a machine, started again on the same store after an end. stdout and stderr are one file."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        self._command = command
        self.log = log
        self._env = env
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.runs:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(20)

    def end(self, seconds: float = 40.0) -> int | None:
        """Well, by SIGTERM; None if it had to be killed."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


class Builder(Program):
    """A machine that builds."""

    def __init__(self, root: Path, busybox: Path, env: dict[str, str], inside: list[str], program: list[str]) -> None:
        super().__init__(root, busybox, env)
        self._inside = inside
        self._program = program

    def command(self, *arguments: str | Path) -> list[str]:
        return [*self._inside, *self._program, *map(str, arguments)]


class Machines:
    """A context manager. root: an empty directory. lease: seconds that a lease lives, 0 for what users have. delay: of
    each machine's wire, seconds in each direction."""

    def __init__(
        self, root: Path, busybox: Path, workers: int = 4, clients: int = 2, lease: float = 0.0, delay: float = 0.0
    ) -> None:
        self.root = root
        self._busybox = busybox
        self.names = [f"w{number + 1}" for number in range(workers)]
        self._client_names = [f"c{number + 1}" for number in range(clients)]
        self.wires = Wires("server", *self.names, *self._client_names, "far", delay=delay)
        self.program = [sys.executable, HASTY, str(lease)]
        self.served = root / "served"
        self.workers: dict[str, Running] = {}
        self.clients: list[Builder] = []

    def __enter__(self) -> Machines:
        self.wires.__enter__()
        try:
            scope = ("--scope", "read,write,execute,admin")
            self.token = make_token(self.served, "--name", "team", *scope)
            (self.root / "buildgraph.toml").write_text("[remote]\nallow-plaintext-token = true\n")
            self.env = {**os.environ, "BUILDGRAPH_TOKEN": self.token}
            for name in ("SOURCE_DATE_EPOCH", "PYTHONDONTWRITEBYTECODE"):
                self.env.pop(name, None)
            address = f"{self.wires.address('server')}:{PORT}"
            self.url = f"grpc://{address}"
            listen = ["serve", "--store", str(self.served), "--listen", address, "--log", str(self.root / "server.jsonl")]
            self.server = Running(
                [*self.wires.inside("server"), *self.program, *listen], self.root / "server.log", self.env
            )
            self.clients = [self._client(name, name) for name in self._client_names]
            self._channel = grpc.insecure_channel(address, [("grpc.max_reconnect_backoff_ms", 500)])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(AttributeError):
            self._channel.close()
        for running in [*self.workers.values(), *([self.server] if hasattr(self, "server") else [])]:
            running.kill()
        for machine in ("server", *self.names, *self._client_names, "far"):
            for pid in self.wires.processes(machine):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.wires.__exit__(kind, error, trace)
        for store in self.root.glob("**/store*"):
            with contextlib.suppress(OSError):
                remove_tree(str(store))

    def _client(self, name: str, machine: str) -> Builder:
        root = self.root / f"client-{name}"
        root.mkdir()
        (root / "buildgraph.toml").write_text("[remote]\nallow-plaintext-token = true\n")
        return Builder(root, self._busybox, self.env, self.wires.inside(machine), self.program)

    def alone(self) -> Builder:
        """One more, on a machine that nobody cuts off."""
        return self._client(f"far{len(list(self.root.iterdir()))}", "far")

    def join(
        self, name: str, *arguments: str, slots: int = 2, store: Path | None = None, env: dict[str, str] | None = None,
        lie: str = "", machine: str = "",
    ) -> Running:  # fmt: skip
        """machine: where it stands, if that is not called as it is. lie: what it is to say, of liar.py."""
        program = [sys.executable, LIAR, self.program[-1], lie] if lie else self.program
        command = ["worker", "--join", self.url, "--name", name, "--slots", str(slots), "--allow-plaintext-token"]
        given = [*command, "--store", str(store or self.store(name)), *arguments]
        made = Running(
            [*self.wires.inside(machine or name), *program, *given], self.root / f"{name}.log", {**self.env, **(env or {})}
        )
        self.workers[name] = made
        return made

    def store(self, name: str) -> Path:
        return self.root / f"store-{name}"

    def ready(self, *names: str, seconds: float = UP_SECONDS) -> None:
        """Wait until the server has these workers."""
        self.wait(
            lambda: set(names) <= {each.name for each in self.state().workers if each.state in ("ready", "cordoned")},
            f"{names} to join", seconds,
        )  # fmt: skip

    def wait(self, there: Callable[[], bool], what: str, seconds: float = UP_SECONDS) -> None:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(grpc.RpcError):
                if there():
                    return
            assert time.monotonic() < until, f"waited for {what} for {seconds} s\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        texts = [f"--- {name}: {worker.said[-1500:]}" for name, worker in self.workers.items()]
        return "\n".join([f"--- server: {self.server.said[-1500:]}", *texts])

    def state(self) -> fleet_pb2.FleetState:
        """Raises grpc.RpcError."""
        request = fleet_pb2.WatchRequest(once=True)
        metadata = (("authorization", f"Bearer {self.token}"),)
        answers = fleet_pb2_grpc.FleetStub(self._channel).Watch(request, metadata=metadata, timeout=10, wait_for_ready=True)
        return next(iter(answers))

    def start_build(self, client: Builder, context: Path, *arguments: str) -> Building:
        return Building(client, client.command(
            "build", context, *client.base(), "--remote", self.url, "--progress", "rawjson", *arguments
        ))  # fmt: skip

    def build(self, client: Builder, context: Path, *arguments: str, seconds: float = 120.0) -> Ran:
        return self.start_build(client, context, *arguments).wait(seconds)


class Building:
    """A build that runs. Its events are those of `--progress rawjson`."""

    def __init__(self, client: Builder, command: list[str]) -> None:
        self.began = time.monotonic()
        self._out = client.root / f"out-{time.monotonic_ns()}"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=client.root, env=client.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=out
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def wait(self, seconds: float) -> Ran:
        """Raises subprocess.TimeoutExpired; then it was killed."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        lines = self._out.read_text("utf-8", "replace").splitlines()
        self._out.unlink()
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
        return Ran(code, "", "\n".join(line for line in lines if not line.startswith("{")), events)


def digest(ran: Ran) -> str:
    """Of the image that was built."""
    return next((str(event["digest"]) for event in ran.events if event["event"] == "ended"), "")


def places(ran: Ran) -> dict[str, str]:
    """Node → where it ran, of the steps that said so last."""
    return {event["id"]: event["where"] for event in ran.events if event["event"] == "placed"}
