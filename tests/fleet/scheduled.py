"""A server with a scheduler in this process, and builds and workers that speak to it by the stubs alone."""

from __future__ import annotations

import queue
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent / "server" / "services"))

import grpc
from blake3 import blake3
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import fleet_pb2_grpc, remote_execution_pb2_grpc
from buildgraph.v1 import remote_execution_pb2 as re_pb
from live import NamedGuard

from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.result import Layer, Result
from cache.server.server import Server
from cache.wire import encode_result
from worker.fleet.identity import Identity
from worker.fleet.protocol import VERSION
from worker.fleet.service import FleetService
from worker.fleet.signed_texts import outcome_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cache.server.access import Scope

SECONDS = 60.0
"""For anything that is expected to come."""
SOON = 0.3
"""For what is expected not to come."""
EVERYBODY: dict[str, dict[str, tuple[Scope, ...]]] = {
    "ann": {"": ("read", "write", "execute"), "other": ("read", "write", "execute")},
    "bob": {"": ("read", "write", "execute")},
    "w": {"": ("read", "execute"), "other": ("read", "execute")},
    "limited": {"other": ("read", "execute")},
    "reader": {"": ("read",)},
    "blind": {"": ("execute",)},
    "nobody": {},
    "stranger": {"elsewhere": ("read", "execute", "write")},
    "root": {"": ("read", "write", "execute", "admin")},
}


class Clock:
    """Real time, and what was added to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Scheduled:
    """`again` ends it and starts it anew at the same address, with the same store."""

    def __init__(self, root: Path, away_seconds: float = 0.3, *, shares_mounts: bool = False) -> None:
        self.root = root
        self.clock = Clock()
        self.lines: list[dict[str, Any]] = []
        self.guard = NamedGuard({name: dict(grants) for name, grants in EVERYBODY.items()})
        self._options = {"away_seconds": away_seconds, "shares_mounts": shares_mounts}
        self._made: list[Any] = []
        self._port = 0
        self._start()

    def _start(self) -> None:
        self.store = LmdbStore(str(self.root / "served"))
        self.service = FleetService(self._say, clock=self.clock, **self._options)
        self._server = Server(self.store, f"127.0.0.1:{self._port}", self.guard, further=self.service)
        self._server.start()
        self._port = self._server.port

    def _say(self, event: str, /, **fields: object) -> None:
        self.lines.append({"event": event, **fields})

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def channel(self) -> grpc.Channel:
        options = (
            ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
        )  # fmt: skip
        made = grpc.insecure_channel(f"127.0.0.1:{self._port}", options=options)
        self._made.append(made)
        return made

    def build(self, who: str = "ann", name: str = "", namespace: str = "", **options: Any) -> Build:
        build = Build(self.channel(), who, name or secrets.token_hex(8), namespace, **options)
        self._made.append(build)
        return build

    def worker(self, name: str = "w1", who: str = "w", **options: Any) -> Worker:
        identity = options.pop("identity", None) or Identity.load(str(self.root / f"{name}.key"))
        worker = Worker(self.channel(), name, who, identity, **options)
        self._made.append(worker)
        return worker

    def fleet(self) -> fleet_pb2_grpc.FleetStub:
        return fleet_pb2_grpc.FleetStub(self.channel())

    def state(self, who: str = "ann") -> pb.FleetState:
        return next(iter(self.fleet().Watch(pb.WatchRequest(once=True), metadata=[("name", who)], timeout=SECONDS)))

    def wait_for(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < until, "it never came to that"
            time.sleep(0.02)

    def stop_server(self) -> None:
        self._server.stop(1.0)
        self.store.close()

    def again(self) -> None:
        self.stop_server()
        self._start()

    def close(self) -> None:
        for each in reversed(self._made):
            each.close()
        self.stop_server()


class Stream:
    """One end of a stream: a thread puts what comes into a queue; what it ended with comes last."""

    def __init__(self, method: Any, who: str, first: Any = None) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._kept: list[Any] = []
        self.error: grpc.RpcError | None = None
        self.ended = threading.Event()
        self.slow = threading.Event()
        self.slow.set()
        if first is not None:
            self.requests.put(first)
        self.call = method(iter(self.requests.get, None), metadata=[("name", who)])
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for message in self.call:
                self._came.put(message)
                self.slow.wait()
        except grpc.RpcError as error:
            self.error = error
        self.ended.set()
        self._came.put(None)

    def send(self, **fields: Any) -> None:
        raise NotImplementedError

    def take(self, kind: str, seconds: float = SECONDS, **fields: Any) -> Any:
        """The first message of the kind with these fields that came and was not taken. Others stay."""
        until = time.monotonic() + seconds
        for message in self._kept:
            if _is(message, kind, fields):
                self._kept.remove(message)
                return getattr(message, kind)
        while True:
            try:
                message = self._came.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} {fields} came, but {self._kept}"[:2000]) from None
            if message is None:
                raise AssertionError(f"the stream ended: {self.error} {self._kept}"[:2000])
            if _is(message, kind, fields):
                return getattr(message, kind)
            self._kept.append(message)

    def none(self, kind: str, **fields: Any) -> bool:
        """Whether none comes."""
        try:
            self.take(kind, SOON, **fields)
        except AssertionError:
            return not self.ended.is_set()
        return False

    def failure(self) -> tuple[grpc.StatusCode, str]:
        """How it ended."""
        assert self.ended.wait(SECONDS), "the stream goes on"
        assert self.error is not None, "it ended well"
        return self.error.code(), self.error.details()

    def close(self) -> None:
        self.slow.set()
        self.requests.put(None)
        self.call.cancel()
        self._thread.join(SECONDS)


def _is(message: Any, kind: str, fields: Mapping[str, Any]) -> bool:
    if message.WhichOneof("message") != kind:
        return False
    return all(getattr(getattr(message, kind), name) == value for name, value in fields.items())


class Build(Stream):
    def __init__(self, channel: grpc.Channel, who: str, name: str, namespace: str, version: int = VERSION) -> None:
        self.name = name
        opening = pb.OpenBuild(version=version, build=name, instance_name=namespace, project="shop")
        super().__init__(fleet_pb2_grpc.FleetStub(channel).Build, who, pb.BuildRequest(open=opening))

    def send(self, **fields: Any) -> None:
        self.requests.put(pb.BuildRequest(**fields))

    def execute(self, key: str, **options: Any) -> str:
        needs = pb.Needs(platform=options.pop("platform", ""), seconds=options.pop("seconds", 0.0), **options.pop("needs", {}))
        body, anew = options.pop("body", b'{"version": 1}'), options.pop("anew", False)
        action = pb.ActionOrder(key=key, body=body, **options)
        self.send(execute=pb.ExecuteAction(action=action, needs=needs, text=f"RUN {key[:4]}", anew=anew))
        return key

    def log(self, key: str, size: int) -> bytes:
        """So much of it."""
        found = b""
        while len(found) < size:
            found += self.take("log", key=key).data
        return found

    def hang_up(self) -> None:
        """Ask for nothing more, and wait for the end."""
        self.requests.put(None)
        assert self.ended.wait(SECONDS)


class Worker(Stream):
    def __init__(self, channel: grpc.Channel, name: str, who: str, identity: Identity, **options: Any) -> None:
        self.name, self.who, self.identity = name, who, identity
        self.incarnation = options.pop("incarnation", secrets.token_hex(8))
        self._cas = remote_execution_pb2_grpc.ContentAddressableStorageStub(channel)
        super().__init__(fleet_pb2_grpc.FleetWorkersStub(channel).Work, who)
        self.nonce = self._challenged()
        parts = ("buildgraph.v1 hello", self.nonce.hex(), name, self.incarnation)
        signature = options.pop("signature", None) or identity.sign(parts)
        self.hello = pb.WorkerMessage.Hello(
            version=VERSION, name=name, program="1.2.3", slots=options.pop("slots", 1), memory=1 << 30,
            platforms=options.pop("platforms", ("linux/amd64",)), key=identity.public, signature=signature,
            incarnation=self.incarnation, **options,
        )  # fmt: skip
        self.send(hello=self.hello)

    def _challenged(self) -> bytes:
        """The nonce; none if it may not even say hello."""
        try:
            return bytes(self.take("challenge").nonce)
        except AssertionError:
            assert self.error is not None
            return b""

    def joined(self) -> Worker:
        self.welcome = self.take("welcome")
        return self

    def send(self, **fields: Any) -> None:
        self.requests.put(pb.WorkerMessage(**fields))

    def lease(self, **fields: Any) -> pb.SchedulerMessage.Lease:
        """The next one, which has begun."""
        lease = self.take("lease", **fields)
        self.begin(lease)
        return lease

    def begin(self, lease: pb.SchedulerMessage.Lease, seal_key: bytes = b"s" * 32, signature: bytes = b"") -> None:
        text = ("buildgraph.v1 lease", lease.instance_name, lease.action.key, lease.lease, seal_key.hex())
        signature = signature or self.identity.sign(text)
        self.send(started=pb.WorkerMessage.LeaseStarted(lease=lease.lease, seal_key=seal_key, signature=signature))

    def log(self, lease: str, data: bytes, offset: int = 0) -> None:
        self.send(log=pb.WorkerMessage.LeaseLog(lease=lease, offset=offset, data=data))

    def put(self, data: bytes, namespace: str = "") -> Digest:
        """Have a blob on the server."""
        digest = re_pb.Digest(hash=blake3(data).hexdigest(), size_bytes=len(data))
        request = re_pb.BatchUpdateBlobsRequest(instance_name=namespace, digest_function=re_pb.DigestFunction.BLAKE3)
        request.requests.add(digest=digest, data=data)
        answer = self._cas.BatchUpdateBlobs(request, metadata=[("name", self.who)], timeout=SECONDS)
        assert answer.responses[0].status.code == 0, answer
        return Digest.of(data)

    def result(self, *, namespace: str = "", stored: bool = True, said: bytes = b"it ran\n") -> Result:
        """A result whose blobs are on the server, or are not."""
        tar, listing = secrets.token_bytes(100), secrets.token_bytes(50)
        put = (lambda data: self.put(data, namespace)) if stored else Digest.of
        layer = Layer("sha256:" + "ab" * 32, "content", put(tar), put(listing))
        return Result(layer, put(said), 1.5, time.time(), f"someone@{self.name}")

    def outcome(self, lease: Any, result: Result | None = None, failure: pb.Failure | None = None) -> pb.Outcome:
        outcome = pb.Outcome(worker_key=self.identity.public)
        if failure is not None:
            outcome.failure.CopyFrom(failure)
        else:
            outcome.result.ParseFromString(encode_result(result or self.result(namespace=lease.instance_name)))
        outcome.signature = self.identity.sign(outcome_text(lease.instance_name, lease.action.key, outcome))
        return outcome

    def done(self, lease: Any, outcome: pb.Outcome | None = None, key: str = "", namespace: str | None = None) -> None:
        self.send(
            done=pb.WorkerMessage.LeaseDone(
                lease=lease.lease, key=key or lease.action.key, outcome=outcome or self.outcome(lease),
                instance_name=lease.instance_name if namespace is None else namespace,
            )
        )  # fmt: skip

    def fail(self, lease: Any, **fields: Any) -> None:
        failure = pb.Failure(kind="command", exit_status=3, message="the command ended with exit code 3", tail=["oh"], **fields)
        self.done(lease, self.outcome(lease, failure=failure))


def held(lease: pb.SchedulerMessage.Lease, seconds: float = 4.0, **changed: Any) -> pb.WorkerMessage.HeldLease:
    """What a worker says that goes on with a lease which it was given."""
    fields = {"lease": lease.lease, "instance_name": lease.instance_name, "key": lease.action.key, "proof": lease.proof}
    return pb.WorkerMessage.HeldLease(seconds=seconds, **(fields | changed))


def key(number: int) -> str:
    return blake3(b"%d" % number).hexdigest()


def started(root: Path, **options: Any) -> Iterator[Scheduled]:
    """For fixtures."""
    made = Scheduled(root, **options)
    yield made
    made.close()
