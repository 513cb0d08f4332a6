"""A worker in this process whose commands are Python, and the scheduler's side of its streams, which says what a test does."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import threading
from concurrent import futures
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import fleet_pb2_grpc

from cache.errors import BuildgraphError
from cache.lmdb_store import LmdbStore
from cache.remote.caller import Caller
from cache.remote_settings import RemoteSettings
from worker.action import Action
from worker.fleet.action_body import Body, encode_body
from worker.fleet.agent import Agent
from worker.fleet.agent_lease import Tools
from worker.fleet.identity import Identity
from worker.fleet.offer import Offer
from worker.fleet.protocol import VERSION
from worker.fleet.publishing import Publishing
from worker.operation import Mount, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.action import Order
    from worker.fleet.sealing import ClientSeal

SECONDS = 60.0
KEY = "ab" * 32


class Line:
    """One stream as the scheduler has it."""

    def __init__(self, requests: Iterator[pb.WorkerMessage], version: int) -> None:
        self.came: queue.Queue[pb.WorkerMessage] = queue.Queue()
        self.out: queue.Queue[pb.SchedulerMessage | None] = queue.Queue()
        self.say(challenge={"nonce": bytes(32)})
        threading.Thread(target=self._read, args=(requests, version), daemon=True).start()

    def _read(self, requests: Iterator[pb.WorkerMessage], version: int) -> None:
        with contextlib.suppress(Exception):
            for request in requests:
                self.came.put(request)
                if request.HasField("hello"):
                    self.say(welcome={"version": version, "lease_seconds": 20, "renew_seconds": 0.2})
        self.cut()

    def say(self, **message: Any) -> None:
        self.out.put(pb.SchedulerMessage(**message))

    def take(self, kind: str) -> Any:
        """The next one of a kind; others are forgotten."""
        while (message := self.came.get(timeout=SECONDS)).WhichOneof("message") != kind:
            pass
        return getattr(message, kind)

    def lease(self, mounts: tuple[Mount, ...] = (), **order: Any) -> None:
        run = Run(("/bin/true",), (), "/", "", "default", "host", mounts)
        body = encode_body(Body(Action(KEY, run, ((),), "linux/amd64")))
        self.say(lease={"lease": "boot.1", "action": {"key": KEY, "body": body, **order}, "text": "RUN it"})

    def give(self, seal: ClientSeal, secrets: dict[str, bytes], agents: tuple[str, ...] = ()) -> None:
        """As a build does."""
        values = {name: base64.b64encode(value).decode() for name, value in secrets.items()}
        said = {"namespace": "", "key": KEY, "secrets": values, "proxies": {}, "agents": agents}
        self.say(sealed=seal.seal("secrets", json.dumps(said).encode()))
        self.say(sealed={"lease": "boot.1", "channel": "secrets", "end": True})

    def cut(self) -> None:
        """The stream breaks."""
        self.out.put(None)


class WorkerAlone(fleet_pb2_grpc.FleetWorkersServicer):
    """execute: what a lease does. version: that the scheduler says. said: for people."""

    def __init__(self, root: Path, execute: Callable[[Order], Any], version: int = VERSION) -> None:
        self.said: list[str] = []
        self.failure: BuildgraphError | None = None
        self._version = version
        self._lines: queue.Queue[Line] = queue.Queue()
        self._all: list[Line] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        fleet_pb2_grpc.add_FleetWorkersServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._store = LmdbStore(str(root / "store"))
        identity = Identity.load(str(root / "worker.key"))
        self._caller = Caller(RemoteSettings(False, f"127.0.0.1:{port}", ("",), ""))
        nothing = lambda *_, **__: None  # noqa: E731
        tools = SimpleNamespace(
            store=self._store, identity=identity, publishing=Publishing(SimpleNamespace(), identity),  # type: ignore[arg-type]
            executor=SimpleNamespace(execute=lambda _, order: execute(order)),
            inputs=SimpleNamespace(prepare=lambda _, action, __: action, check_key=nothing, made=nothing),
            hot=SimpleNamespace(hold=nothing, let_go=nothing, add=nothing, tidy=lambda: 0, diff_ids=list, changed=None),
            keeper=SimpleNamespace(is_lost=False), filler=SimpleNamespace(warmer=lambda *_: lambda *_: False),
            mounts=SimpleNamespace(used=nothing, finish=nothing, send=None, shares=False),
        )  # fmt: skip
        assert vars(tools).keys() == set(Tools._fields)
        offer = Offer("w1", "1", 1, 1 << 30, ("linux/amd64",), (), {})
        self._agent = Agent(offer, tools, self._caller, self.said.append)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._agent.run()
        except BuildgraphError as error:
            self.failure = error

    def Work(self, requests: Iterator[pb.WorkerMessage], context: grpc.ServicerContext) -> Iterator[pb.SchedulerMessage]:  # noqa: N802
        line = Line(requests, self._version)
        self._all.append(line)
        self._lines.put(line)
        while (message := line.out.get()) is not None:
            yield message
        context.abort(grpc.StatusCode.UNAVAILABLE, "it broke")

    def line(self) -> Line:
        """The next stream, which the worker has begun."""
        line = self._lines.get(timeout=SECONDS)
        line.take("hello")
        return line

    def wait(self) -> None:
        """For the worker to end by itself."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self._agent.interrupt()
        self._thread.join(SECONDS)
        for line in self._all:
            line.cut()
        self._server.stop(0).wait()
        self._caller.channel.close()
        self._store.close()


def agent_of(order: Order) -> str:
    """The path of its one agent's socket, which a directory's descriptor is needed for."""
    (path,) = order.agents.values()
    assert os.path.exists(path)
    return path
