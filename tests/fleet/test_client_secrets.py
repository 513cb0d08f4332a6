"""What a build gives the holder of a lease: sealed for it alone, agents only by their sockets, and nobody believed early."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import re
import socket
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from buildgraph.v1 import fleet_pb2, records_pb2

from cache.errors import CorruptBlob
from compiler.fleet.fleet_log import FleetLog
from compiler.fleet.lease_line import LeaseLine
from compiler.fleet.link import Watch
from compiler.fleet.placed_executor import Wish, _Turn
from compiler.fleet.trust import Distrusted, Trust
from worker.fleet.identity import Identity
from worker.fleet.sealing import CHUNK, LeaseSeal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Agent:
    """Answers each connection with what it was told, in capitals; says `bye` at the end of what comes."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(40)
        self.connections = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data.upper())
            connection.sendall(b"bye")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Worker:
    """The other end of a lease's line."""

    def __init__(self, agents: dict[str, str]) -> None:
        self.lease = LeaseSeal("l1")
        self.has_room = threading.Event()
        self.has_room.set()
        self.out: queue.Queue[fleet_pb2.Sealed] = queue.Queue()
        started = fleet_pb2.ActionStarted(key="k", lease="l1", seal_key=self.lease.public_key)
        self.line = LeaseLine(started, "main", agents, self)  # type: ignore[arg-type]  # all that it uses of a link

    def seal(self, sealed: fleet_pb2.Sealed) -> None:
        self.out.put(sealed)

    def wait_for_room(self) -> bool:
        return self.has_room.wait(30)


    def next(self) -> tuple[str, bytes | None]:
        sealed = self.out.get(timeout=30)
        return sealed.channel, None if sealed.end else self.lease.open(sealed)

    def say(self, channel: str, data: bytes) -> None:
        self.line.take(self.lease.seal(channel, data))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent")
    yield made
    made.close()


def test_secrets_arrive_whole_and_nobody_between_can_read_them() -> None:
    worker = Worker({})
    secrets = {"a": b"\0\xff value", "large": b"x" * (500 << 10)}
    worker.line.give(secrets, {"http_proxy": "http://me:pass@p"})
    sent = list(worker.out.queue)
    assert all(b"value" not in each.data and base64.b64encode(b"\0\xff value") not in each.data for each in sent)
    assert all(b"pass" not in each.data for each in sent)
    assert all(len(each.data) <= CHUNK + 100 for each in sent)
    data = b""
    while (part := worker.next()) != ("secrets", None):
        assert part[1] is not None
        data += part[1]
    given = json.loads(data)
    assert {name: base64.b64decode(value) for name, value in given["secrets"].items()} == secrets
    assert given["proxies"] == {"http_proxy": "http://me:pass@p"}
    assert (given["namespace"], given["key"], given["agents"]) == ("main", "k", [])


def test_connections_to_an_agent_are_kept_apart(agent: Agent) -> None:
    worker = Worker({"default": agent.path})
    worker.line.give({}, {})
    first = worker.next()
    assert first[0] == "secrets"
    assert json.loads(first[1] or b"")["agents"] == ["default"]
    assert worker.next() == ("secrets", None)
    worker.say("ssh:default:1", b"one")
    assert worker.next() == ("ssh:default:1", b"ONE")
    worker.say("ssh:default:2", b"two")
    assert worker.next() == ("ssh:default:2", b"TWO")
    worker.line.take(fleet_pb2.Sealed(lease="l1", channel="ssh:default:1", end=True))
    assert worker.next() == ("ssh:default:1", b"bye")
    assert worker.next() == ("ssh:default:1", None)
    worker.say("ssh:default:2", b"again")
    assert worker.next() == ("ssh:default:2", b"AGAIN")
    worker.line.close()


@pytest.mark.parametrize("channel", ["ssh:other:1", "ssh:/etc/passwd:1", "secrets", "default:1", ""])
def test_no_other_socket_is_opened(agent: Agent, channel: str) -> None:
    worker = Worker({"default": agent.path})
    worker.line.give({}, {})
    worker.next(), worker.next()
    worker.say(channel, b"x")
    assert worker.next() == (channel, None)
    assert agent.connections == 0


def test_a_lease_holds_so_many_connections_and_no_more(agent: Agent) -> None:
    worker = Worker({"default": agent.path})
    worker.line.give({}, {})
    worker.next(), worker.next()
    for number in range(33):
        worker.say(f"ssh:default:{number}", b"x")
    answers = [worker.next() for _ in range(33)]
    assert sum(answer is None for _, answer in answers) == 1
    worker.line.close()


def test_what_was_not_sealed_for_us_opens_nothing(agent: Agent) -> None:
    worker = Worker({"default": agent.path})
    worker.line.give({}, {})
    worker.next(), worker.next()
    worker.line.take(fleet_pb2.Sealed(lease="l1", channel="ssh:default:1", data=b"anything at all, long enough"))
    assert worker.next() == ("ssh:default:1", None)
    assert agent.connections == 0
    worker.say("ssh:default:2", b"x")
    assert worker.next() == ("ssh:default:2", b"X"), "and ends nothing else"
    worker.line.close()


def test_a_connection_of_which_something_was_lost_ends_and_is_not_opened_again(agent: Agent) -> None:
    worker = Worker({"default": agent.path})
    worker.line.give({}, {})
    worker.next(), worker.next()
    worker.say("ssh:default:1", b"one")
    assert worker.next() == ("ssh:default:1", b"ONE")
    worker.lease.seal("ssh:default:1", b"lost")
    worker.say("ssh:default:1", b"three")
    assert worker.next() == ("ssh:default:1", None)
    worker.say("ssh:default:1", b"four")
    assert worker.next() == ("ssh:default:1", None)
    assert agent.connections == 1


def test_an_agent_that_does_not_listen_holds_up_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        deaf.listen()
        worker = Worker({"default": str(tmp_path / "deaf")})
        worker.line.give({}, {})
        worker.next(), worker.next()
        began = time.monotonic()
        for _ in range(200):
            worker.say("ssh:default:1", bytes(64 << 10))
        assert time.monotonic() - began < 5
        assert worker.next() == ("ssh:default:1", None)


def test_nothing_is_read_of_an_agent_that_has_no_room(agent: Agent) -> None:
    worker = Worker({"default": agent.path})
    worker.line.give({}, {})
    worker.next(), worker.next()
    worker.has_room.clear()
    worker.say("ssh:default:1", b"x")
    with pytest.raises(queue.Empty):
        worker.out.get(timeout=0.3)
    worker.has_room.set()
    assert worker.next() == ("ssh:default:1", b"X")
    worker.line.close()


def test_a_line_that_has_ended_opens_nothing_until_its_lease_is_told_again(agent: Agent) -> None:
    worker = Worker({"default": agent.path})
    worker.line.give({"a": b"x"}, {})
    given = list(worker.out.queue)
    worker.next(), worker.next()
    worker.say("ssh:default:1", b"one")
    assert worker.next() == ("ssh:default:1", b"ONE")
    worker.line.close()
    assert worker.next() == ("ssh:default:1", None)
    for number in (1, 2):
        worker.say(f"ssh:default:{number}", b"x")
        assert worker.next() == (f"ssh:default:{number}", None)
    assert agent.connections == 1
    worker.line.begin_again()
    assert [worker.out.get(timeout=5) for _ in given] == given, "what it may have lost comes again as it was"
    worker.say("ssh:default:3", b"three")
    assert worker.next() == ("ssh:default:3", b"THREE")
    worker.line.close()


def test_an_action_that_waits_again_gives_its_agent_to_nobody_until_somebody_begins(agent: Agent, tmp_path: Path) -> None:
    seal, out = LeaseSeal("l1"), queue.Queue[fleet_pb2.Sealed]()
    request = fleet_pb2.ExecuteAction(action=fleet_pb2.ActionOrder(key="k", agents=["default"]))
    link: Any = SimpleNamespace(seal=out.put, wait_for_room=lambda: True)
    order: Any = SimpleNamespace(agents={"default": agent.path}, secrets={}, proxies={})
    turn = _Turn(Watch(request), order, Wish(), FleetLog(str(tmp_path / "log"), print))
    started = fleet_pb2.ActionStarted(key="k", lease="l1", worker="w1", seal_key=seal.public_key)

    def answer(channel: str) -> bytes | None:
        """Of the agent; None if the connection is ended."""
        turn.sealed(seal.seal(channel, b"x"))
        sealed = out.get(timeout=5)
        assert sealed.channel == channel
        return None if sealed.end else seal.open(sealed)

    def begin() -> None:
        turn.started(started, "main", link)
        secrets = out.get(timeout=5)
        with contextlib.suppress(CorruptBlob):  # the second time, since it had it
            seal.open(secrets)
        assert out.get(timeout=5).end

    begin()
    assert answer("ssh:default:1") == b"X"
    turn.sealed(fleet_pb2.Sealed(lease="l1", channel="ssh:default:2", data=b"not sealed by the worker at all"))
    assert out.get(timeout=5).end, "that does not end the build"
    turn.queued(fleet_pb2.ActionQueued(key="k", again=True))
    assert out.get(timeout=5).end
    assert answer("ssh:default:3") is None
    assert agent.connections == 1
    begin()
    assert answer("ssh:default:4") == b"X"
    turn.reopened()
    assert out.get(timeout=5).end
    assert answer("ssh:default:5") is None
    turn.close()


# signatures


class Signer:
    def __init__(self, path: Path) -> None:
        self.identity = Identity.load(str(path))
        self.lease = fleet_pb2.ActionStarted(key="k", lease="l1", worker="w1", seal_key=b"s" * 32, worker_key=self.identity.public)
        self.lease.signature = self.identity.sign(["buildgraph.v1 lease", "main", "k", "l1", (b"s" * 32).hex()])

    def done(self, namespace: str = "main", *, failed: bool = False, signed: bool = True) -> fleet_pb2.ActionDone:
        outcome = fleet_pb2.Outcome(failure=fleet_pb2.Failure(kind="command")) if failed else fleet_pb2.Outcome(result=records_pb2.Result(made_by="x"))
        said = outcome.failure if failed else outcome.result
        if signed:
            outcome.worker_key = self.identity.public
            outcome.signature = self.identity.sign(["buildgraph.v1 outcome", namespace, "k", said.SerializeToString(deterministic=True).hex()])
        return fleet_pb2.ActionDone(key="k", worker="w1", outcome=outcome)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "key")


def test_what_a_worker_signed_is_believed(signer: Signer) -> None:
    for trusted in (frozenset[str](), frozenset({signer.identity.fingerprint})):
        trust = Trust("main", trusted)
        trust.check_lease(signer.lease, "k")
        trust.check_outcome(signer.done())
        trust.check_outcome(signer.done(failed=True))


def test_what_was_changed_on_the_way_is_not(signer: Signer) -> None:
    trust = Trust("main", frozenset())
    for field, value in (("seal_key", b"t" * 32), ("lease", "l2"), ("signature", b"x" * 64), ("worker_key", b"y" * 32)):
        lease = fleet_pb2.ActionStarted()
        lease.CopyFrom(signer.lease)
        setattr(lease, field, value)
        with pytest.raises(Distrusted, match="the lease of w1 has a wrong signature"):
            trust.check_lease(lease, "k")
    for other, key in ((Trust("main", frozenset()), "m"), (Trust("another namespace", frozenset()), "k")):
        with pytest.raises(Distrusted, match="the lease of w1 has a wrong signature"):
            other.check_lease(signer.lease, key)
    changed = signer.done()
    changed.outcome.result.made_by = "y"
    other = signer.done()
    other.key = "m"
    for done in (changed, other, signer.done("another namespace"), signer.done(failed=True, signed=False)):
        with pytest.raises(Distrusted, match="the result of w1 has a wrong signature"):
            trust.check_outcome(done)


def test_only_the_trusted_are_believed_if_there_are_any(signer: Signer, tmp_path: Path) -> None:
    trust = Trust("main", frozenset({Identity.load(str(tmp_path / "another")).fingerprint}))
    with pytest.raises(Distrusted, match=re.escape(f"w1 ({signer.identity.fingerprint})")):
        trust.check_lease(signer.lease, "k")
    with pytest.raises(Distrusted, match="none of the trusted ones"):
        trust.check_outcome(signer.done())
    with pytest.raises(Distrusted, match="signed by nobody"):
        trust.check_outcome(signer.done(signed=False))


def test_an_unsigned_result_comes_from_the_cache(signer: Signer) -> None:
    Trust("main", frozenset()).check_outcome(signer.done(signed=False))
