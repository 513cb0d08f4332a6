"""Both ends of a lease's line with a server between them that may lie or lose what it carries."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from buildgraph.v1 import fleet_pb2 as pb

from cache.errors import CorruptBlob
from compiler.fleet.lease_line import LeaseLine
from compiler.fleet.trust import Distrusted, Trust
from worker.fleet.agent_line import WorkerLine
from worker.fleet.identity import Identity
from worker.fleet.signed_texts import lease_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS, THEIRS = "ab" * 32, "cd" * 32
SECRETS = {"token": b"correct horse battery staple"}


class Holder:
    """A worker that is trusted, and holds the lease of an action."""

    def __init__(self, directory: Path, namespace: str, key: str) -> None:
        self.is_up = True
        self.client: LeaseLine | None = None
        self.lost = threading.Event()
        """Something was said that no build heard."""
        self.link: Any = SimpleNamespace(seal=self.take, wait_for_room=lambda: True)
        self.line = WorkerLine("boot.1", (namespace, key), self.send, lambda: self.is_up)
        identity = Identity.load(str(directory / "worker.key"))
        self.fingerprint = identity.fingerprint
        self.started = pb.ActionStarted(
            key=key, lease="boot.1", worker="w1", seal_key=self.line.seal_key, worker_key=identity.public,
            signature=identity.sign(lease_text(namespace, key, "boot.1", self.line.seal_key)),
        )  # fmt: skip

    def send(self, sealed: pb.Sealed) -> bool:
        """To the build, by a stream that is up or not."""
        if self.is_up and self.client is not None:
            self.client.take(sealed)
        elif self.is_up:
            self.lost.set()
        return self.is_up

    def take(self, sealed: pb.Sealed) -> None:
        """From the build, by the same."""
        if self.is_up:
            self.line.take(sealed)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    """Whose build has an agent that answers in capitals."""
    path = str(tmp_path / "real")
    with socket.create_server(path, family=socket.AF_UNIX) as listener:
        threading.Thread(target=answer_all, args=(listener,), daemon=True).start()
        made = Holder(tmp_path, "team", OURS)
        made.client = LeaseLine(made.started, "team", {"default": path}, made.link)
        yield made
        made.client.close()
        made.line.close()


def answer_all(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(1 << 16):
            connection.sendall(data.upper())


class Ssh:
    """Of a step."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.settimeout(30)

    def __enter__(self) -> Ssh:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, data: bytes) -> bytes:
        """The answer; nothing if the connection ended."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)
            return self._socket.recv(100)
        return b""


@pytest.mark.parametrize(("namespace", "key"), [("team", THEIRS), ("others", OURS)])
def test_a_server_cannot_have_secrets_sealed_for_a_command_of_its_own(tmp_path: Path, namespace: str, key: str) -> None:
    holder = Holder(tmp_path, namespace, key)
    holder.started.key = OURS  # which the build wants, in `team`
    with pytest.raises(Distrusted):
        Trust("team", frozenset({holder.fingerprint})).check_lease(holder.started, OURS)
    LeaseLine(holder.started, "team", {}, holder.link).give(SECRETS, {})
    with pytest.raises(CorruptBlob, match="for another action"):
        holder.line.given(30, lambda: False)


def test_the_command_that_the_build_wants_gets_them(tmp_path: Path) -> None:
    holder = Holder(tmp_path, "team", OURS)
    Trust("team", frozenset({holder.fingerprint})).check_lease(holder.started, OURS)
    LeaseLine(holder.started, "team", {"default": "/agent"}, holder.link).give(SECRETS, {"http_proxy": "p"})
    assert holder.line.given(30, lambda: False) == (SECRETS, {"http_proxy": "p"}, ("default",))


# streams that break


def test_a_step_hears_that_its_connection_is_gone_with_the_stream_and_makes_another(holder: Holder, tmp_path: Path) -> None:
    assert holder.client is not None
    holder.client.give({}, {})
    assert holder.line.given(30, lambda: False) is not None
    path = holder.line.agents(["default"], str(tmp_path / "agents"))["default"]
    with Ssh(path) as ssh, Ssh(path) as other:
        assert (ssh.ask(b"one"), other.ask(b"one")) == (b"ONE", b"ONE")
        holder.is_up = False
        assert ssh.ask(b"lost") == b"", "what it said was lost"
        holder.line.hang_up()  # as the worker does when its stream breaks
        assert other.ask(b"two") == b"", "what it is answered might be lost"
    holder.is_up = True
    with Ssh(path) as ssh:
        assert ssh.ask(b"three") == b"THREE"


def test_what_is_lost_with_the_stream_of_the_build_does_not_leave_the_step_waiting(holder: Holder, tmp_path: Path) -> None:
    assert holder.client is not None
    holder.client.give({}, {})
    assert holder.line.given(30, lambda: False) is not None
    path = holder.line.agents(["default"], str(tmp_path / "agents"))["default"]
    with Ssh(path) as ssh:
        build, holder.client = holder.client, None  # what comes now is on its way by a stream that breaks
        asked = threading.Thread(target=lambda: answers.append(ssh.ask(b"lost")))
        answers: list[bytes] = []
        asked.start()
        assert holder.lost.wait(30)
        assert asked.is_alive()
        holder.client = build
        build.begin_again()
        holder.line.take(pb.Sealed(lease="boot.1", channel="ssh:", end=True))  # as the server says when the build is back
        asked.join(30)
        assert answers == [b""]
    with Ssh(path) as ssh:
        assert ssh.ask(b"two") == b"TWO"


def test_a_build_whose_stream_broke_ends_connections_and_takes_new_ones(holder: Holder, tmp_path: Path) -> None:
    assert holder.client is not None
    holder.client.give({}, {})
    assert holder.line.given(30, lambda: False) is not None
    path = holder.line.agents(["default"], str(tmp_path / "agents"))["default"]
    with Ssh(path) as ssh:
        assert ssh.ask(b"one") == b"ONE"
        holder.client.close()
        assert ssh.ask(b"two") == b""
    holder.client.begin_again()
    with Ssh(path) as ssh:
        assert ssh.ask(b"three") == b"THREE"


@pytest.mark.parametrize("arrived", [0, 1, 2, 3])
def test_secrets_that_were_lost_come_again(holder: Holder, arrived: int) -> None:
    messages: list[pb.Sealed] = []
    link: Any = SimpleNamespace(seal=messages.append, wait_for_room=lambda: True)
    client = LeaseLine(holder.started, "team", {}, link)
    secrets = {"large": b"x" * 100_000}
    client.give(secrets, {})
    for sealed in messages[:arrived]:
        holder.line.take(sealed)
    lost = messages[arrived:]
    messages.clear()
    client.begin_again()
    assert len(messages) == 4
    assert lost == messages[arrived:]
    for sealed in messages:
        holder.line.take(sealed)
    assert holder.line.given(30, lambda: False) == (secrets, {}, ())
