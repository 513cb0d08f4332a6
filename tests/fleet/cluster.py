"""A server, workers and clients, each a program of its own with a store of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent / "build"))
sys.path.insert(0, str(Path(__file__).parent.parent / "server"))

from program import Program, Ran
from serving import Serving, make_token

from cache.run_dir import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
JOIN_SECONDS = 90.0
BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base"


class Joined:
    """One worker. stdout and stderr are files."""

    def __init__(self, root: Path, name: str, url: str, token: str, arguments: tuple[str, ...]) -> None:
        self.name = name
        self.store = root / f"store-{name}"
        self.log = root / f"{name}.log"
        env = {**os.environ, "BUILDGRAPH_TOKEN": token}
        command = [sys.executable, "-m", "compiler", "worker", "--join", url, "--name", name, "--store", str(self.store)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *arguments], cwd=ROOT, env=env, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(90)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)


class Cluster:
    """Starts with a server alone. Everything made here is ended by `close`."""

    def __init__(self, root: Path, busybox: Path, *serve: str) -> None:
        """serve: options of the server."""
        self.root = root
        self._serve = serve
        self._busybox = busybox
        self._served = root / "served"
        self.worker_token = make_token(self._served, "--name", "workers", "--scope", "read,write,execute")
        self.token = make_token(self._served, "--name", "builder", "--scope", "read,write,execute")
        self.server = Serving(root, *serve, store=self._served)
        self.workers: list[Joined] = []
        self._clients: list[Program] = []

    @property
    def url(self) -> str:
        return f"grpc://{self.server.address}"

    def restart_server(self) -> None:
        """Kill it, and start it again at the same address."""
        address = self.server.address
        self.server.end()
        self.server = Serving(self.root, *self._serve, "--listen", address, store=self._served)

    def join(self, *names: str, slots: int = 2, arguments: tuple[str, ...] = ()) -> list[Joined]:
        """Workers, once the server knows them."""
        made = [Joined(self.root, name, self.url, self.worker_token, ("--slots", str(slots), *arguments)) for name in names]
        self.workers += made
        self.wait(lambda: set(names) <= {each["name"] for each in self.state()["workers"]}, made)
        return made

    def wait(self, there: Callable[[], bool], watched: list[Joined] | None = None, seconds: float = JOIN_SECONDS) -> None:
        until = time.monotonic() + seconds
        while not there():
            gone = [each for each in watched or () if each.process.poll() is not None]
            assert not gone, f"{gone[0].name} ended: {gone[0].said[-2000:]}"
            logs = "\n".join(each.said[-1000:] for each in self.workers)
            assert time.monotonic() < until, f"it never came so far\n{logs}"
            time.sleep(0.1)

    def state(self) -> dict[str, Any]:
        """What `buildgraph fleet` says."""
        found: dict[str, Any] = json.loads(self.fleet("--format", "json").ok().stdout)
        return found

    def fleet(self, *arguments: str) -> Ran:
        return self.client("observer").call("fleet", *arguments, "--remote", self.url)

    def client(self, name: str = "one", token: str | None = None) -> Program:
        """A machine that builds, the same for the same name."""
        root = self.root / f"client-{name}"
        known = next((each for each in self._clients if each.root == root), None)
        if known is None:
            root.mkdir()
            known = Program(root, self._busybox, {"BUILDGRAPH_TOKEN": self.token if token is None else token})
            self._clients.append(known)
        return known

    def build(self, client: Program, context: Path, *arguments: str | Path, **options: Any) -> Ran:
        return client.build(context, "--remote", self.url, *arguments, **options)

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.server.end()
        for store in [each.store for each in (*self.workers, *self._clients)]:
            if store.exists():
                with contextlib.suppress(OSError):
                    remove_tree(str(store))


def of_files(place: Path, look: Callable[[Path], Any]) -> dict[Path, Any]:
    """What `look` says of each regular file below a place, from which files may go meanwhile."""
    found = {}
    for directory, _, names in os.walk(place):
        for path in (Path(directory, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    found[path] = look(path)
    return found


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.05)


def places(ran: Ran) -> dict[str, str]:
    """Node → where it ran, of the steps that said so last."""
    return {event["id"]: event["where"] for event in ran.events if event["event"] == "placed"}


def warnings(ran: Ran) -> list[str]:
    return [event["text"] for event in ran.events if event["event"] == "warned"]


def digest(ran: Ran) -> str:
    """Of the image that was built."""
    return next((str(event["digest"]) for event in ran.events if event["event"] == "ended"), "")
