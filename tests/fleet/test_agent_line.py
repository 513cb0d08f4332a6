"""What a build gives to the holder of a lease: secrets once, and an ssh agent for as long as the step runs."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from buildgraph.v1 import fleet_pb2 as pb

from cache.errors import CorruptBlob
from worker.fleet.agent_line import MAX_SECRETS, WorkerLine
from worker.fleet.sealing import ClientSeal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEASE = "boot.1"
ACTION = ("team", "ab" * 32)
SOON = 0.2


class Ends:
    """A worker's line, and the build at its other end."""

    def __init__(self) -> None:
        self.sent: queue.Queue[pb.Sealed] = queue.Queue()
        self.line = WorkerLine(LEASE, ACTION, self.send, lambda: True)
        self.client = ClientSeal(LEASE, self.line.seal_key)

    def send(self, sealed: pb.Sealed) -> bool:
        self.sent.put(sealed)
        return True

    def give(self, data: bytes, *, end: bool = True) -> None:
        self.line.take(self.client.seal("secrets", data))
        if end:
            self.line.take(pb.Sealed(lease=LEASE, channel="secrets", end=True))

    def give_all(self, **values: object) -> None:
        """As a build does."""
        said = {"namespace": ACTION[0], "key": ACTION[1], "secrets": {}, "proxies": {}, "agents": [], **values}
        self.give(json.dumps(said).encode())

    def said(self) -> tuple[str, bytes, bool]:
        """(channel, what the worker's side says, whether it is the end)."""
        sealed = self.sent.get(timeout=30)
        return sealed.channel, b"" if sealed.end else self.client.open(sealed), sealed.end


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.line.close()


def test_secrets_come_in_pieces_and_are_taken_once(ends: Ends) -> None:
    given = {"proxies": {"http_proxy": "p"}, "secrets": {"a": "eA==", "empty": ""}, "agents": ["default"]}
    data = json.dumps({**given, "namespace": ACTION[0], "key": ACTION[1]}).encode()
    ends.give(data[:7], end=False)
    ends.give(data[7:])
    ends.give_all(secrets={"a": "bGF0ZQ=="})
    assert ends.line.given(30, lambda: False) == ({"a": b"x", "empty": b""}, {"http_proxy": "p"}, ("default",))


def test_secrets_that_do_not_come_are_not_waited_for_for_ever(ends: Ends) -> None:
    ends.give(b'{"proxies": {}, "secrets": {"a": "eA=="}}', end=False)
    began = time.monotonic()
    assert ends.line.given(SOON, lambda: False) is None
    assert ends.line.given(60, lambda: True) is None
    assert time.monotonic() - began < 30


NO_SECRETS = (
    b"", b"[]", b"{}", b'{"secrets": {}}', b'{"secrets": {"a": 1}, "proxies": {}}', b'{"secrets": {"a": "no base64"}, "proxies": {}}',
    b'{"secrets": {"a": "eA=="', b'{"secrets": {}, "proxies": []}', b"\xff", b'{"secrets": {}, "proxies": {}, "agents": []}',
)  # fmt: skip


@pytest.mark.parametrize("data", NO_SECRETS)
def test_what_are_no_secrets_is_an_error_that_does_not_show_it(ends: Ends, data: bytes) -> None:
    ends.give(data)
    with pytest.raises(CorruptBlob) as caught:
        ends.line.given(30, lambda: False)
    assert str(caught.value) == "the secrets of the build did not come as they should"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_was_not_sealed_for_it_counts_for_nothing(ends: Ends) -> None:
    stranger = ClientSeal(LEASE, WorkerLine(LEASE, ACTION, ends.send, lambda: True).seal_key)
    ends.line.take(stranger.seal("secrets", b'{"proxies": {}, "secrets": {"a": "ZXZpbA=="}}'))
    ends.give_all(secrets={"a": "eA=="})
    assert ends.line.given(30, lambda: False) == ({"a": b"x"}, {}, ())


@pytest.mark.parametrize("action", [{"namespace": ""}, {"key": "cd" * 32}])
def test_what_is_meant_for_another_action_is_not_used(ends: Ends, action: dict[str, object]) -> None:
    ends.give_all(secrets={"a": "eA=="}, **action)
    with pytest.raises(CorruptBlob, match="for another action"):
        ends.line.given(30, lambda: False)


@pytest.mark.parametrize("proxies", [{"LD_PRELOAD": "/evil"}, {"http_proxy": 1}, {"http_proxy": "x" * 5000}, {"http_proxy": "a\0b"}])
def test_nothing_but_proxies_is_set_without_a_key_that_counts_it(ends: Ends, proxies: dict[str, object]) -> None:
    ends.give_all(proxies=proxies)
    with pytest.raises(CorruptBlob, match="no proxy"):
        ends.line.given(30, lambda: False)


def test_secrets_do_not_fill_the_memory(ends: Ends) -> None:
    piece = b" " * (256 << 10)
    for _ in range(MAX_SECRETS // len(piece) + 10):
        ends.give(piece, end=False)
    assert len(ends.line._received) <= MAX_SECRETS


def test_an_agent_is_asked_and_answers(ends: Ends, tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 40)
    ends.give(b"{}")
    paths = ends.line.agents(["default", "other"], str(directory))
    assert directory.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as ssh, socket.socket(socket.AF_UNIX) as second:
        ssh.connect(paths["default"])
        ssh.sendall(b"question")
        channel, asked, _ = ends.said()
        assert (channel.startswith("ssh:default:"), asked) == (True, b"question")
        second.connect(paths["other"])
        second.sendall(b"another")
        other, asked, _ = ends.said()
        assert (other.startswith("ssh:other:"), asked) == (True, b"another")
        ends.line.take(ends.client.seal(channel, b"ans"))
        ends.line.take(ends.client.seal(channel, b"wer"))
        ssh.settimeout(30)
        heard = ssh.recv(100)
        while len(heard) < 6:
            heard += ssh.recv(100)
        assert heard == b"answer"
        ssh.shutdown(socket.SHUT_WR)
        assert ends.said() == (channel, b"", True)
        ends.line.take(pb.Sealed(lease=LEASE, channel=other, end=True))
        second.settimeout(30)
        assert second.recv(100) == b"", "the agent has closed it"


def test_an_agent_is_gone_with_the_lease(ends: Ends, tmp_path: Path) -> None:
    ends.give(b"{}")
    path = ends.line.agents(["default"], str(tmp_path / "agents"))["default"]
    ssh = socket.socket(socket.AF_UNIX)
    ssh.connect(path)
    ssh.sendall(b"x")
    ends.said()
    before = threading.active_count()
    ends.line.close()
    ssh.settimeout(30)
    assert ssh.recv(10) == b""
    ssh.close()
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(OSError):
        late.connect(path)
    until = time.monotonic() + 30
    while threading.active_count() > before - 2:
        assert time.monotonic() < until, "its threads end"
        time.sleep(0.02)


def test_a_step_that_does_not_read_loses_its_connection_and_nothing_waits(ends: Ends, tmp_path: Path) -> None:
    ends.give(b"{}")
    path = ends.line.agents(["default"], str(tmp_path / "agents"))["default"]
    with socket.socket(socket.AF_UNIX) as ssh:
        ssh.connect(path)
        ssh.sendall(b"x")
        channel, _, _ = ends.said()
        began = time.monotonic()
        for _ in range(200):
            ends.line.take(ends.client.seal(channel, bytes(64 << 10)))
        assert time.monotonic() - began < 30
        assert ends.said() == (channel, b"", True)
