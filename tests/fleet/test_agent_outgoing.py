"""What of a worker's messages goes first, and how much may wait."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from buildgraph.v1 import fleet_pb2 as pb

from worker.fleet.agent_line import WorkerLine
from worker.fleet.agent_outgoing import MOST_BYTES, ROOM, SEALED_ROOM, Outgoing
from worker.fleet.sealing import ClientSeal

if TYPE_CHECKING:
    from pathlib import Path

PIECE = bytes(64 << 10)


def log(lease: str, data: bytes = PIECE) -> pb.WorkerMessage:
    return pb.WorkerMessage(log={"lease": lease, "data": data})


def sealed(data: bytes = PIECE) -> pb.WorkerMessage:
    return pb.WorkerMessage(sealed={"lease": "l1", "channel": "ssh:default:1", "data": data})


def kinds(outgoing: Outgoing) -> list[str | None]:
    """In the order in which they go."""
    outgoing.finish()
    return [message.WhichOneof("message") for message in outgoing]


def test_renewals_do_not_wait_for_what_steps_say() -> None:
    outgoing = Outgoing()
    for _ in range(3):
        assert outgoing.put(sealed())
    assert outgoing.put(log("l1"))
    assert outgoing.put(log("l1"))
    assert outgoing.put(pb.WorkerMessage(done={"lease": "l1"}))
    for message in ({"started": {"lease": "l2"}}, {"renewal": {"leases": ["l1", "l2"]}}, {"given_back": {"lease": "l2"}}):
        assert outgoing.put(pb.WorkerMessage(**message))  # type: ignore[arg-type]
    first = ["started", "renewal", "given_back"]
    assert kinds(outgoing) == [*first, "log", "sealed", "log", "sealed", "done", "sealed"]


def test_logs_and_sealed_messages_wait_for_their_own_room() -> None:
    outgoing = Outgoing()
    while outgoing.wait_for_room(0, sealed=True):
        outgoing.put(sealed())
    assert outgoing.wait_for_room(0)
    count = 0
    while outgoing.wait_for_room(0):
        outgoing.put(log("l1"))
        count += 1
    assert ROOM // len(PIECE) - 1 <= count <= ROOM // len(PIECE) + 1


@pytest.mark.parametrize("message", [sealed(), log("l1")])
def test_what_waits_is_bounded_by_its_bytes_and_by_that_nothing_else(message: pb.WorkerMessage) -> None:
    outgoing = Outgoing()
    taken = 0
    while outgoing.put(message):
        taken += message.ByteSize()
        assert taken <= MOST_BYTES + len(PIECE) + 100
    assert outgoing.put(pb.WorkerMessage(done={"lease": "l1"}))
    assert outgoing.put(pb.WorkerMessage(renewal={"leases": ["l1"]}))
    outgoing.end()
    assert not outgoing.put(message)
    assert list(outgoing) == []


def test_a_step_that_only_talks_to_its_agent_fills_no_memory(tmp_path: Path) -> None:
    outgoing = Outgoing()
    line = WorkerLine(
        "l1", ("", ""), lambda message: outgoing.put(pb.WorkerMessage(sealed=message)),
        lambda: outgoing.wait_for_room(20, sealed=True),
    )  # fmt: skip
    line.take(ClientSeal("l1", line.seal_key).seal("secrets", b"{}"))
    path = line.agents(["default"], str(tmp_path / "agents"))["default"]
    sent = 0
    with socket.socket(socket.AF_UNIX) as ssh:
        ssh.connect(path)
        ssh.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += ssh.send(PIECE)
        assert sent < 8 << 20
        assert outgoing._sealed.size <= SEALED_ROOM + 2 * len(PIECE)
        outgoing.put(pb.WorkerMessage(renewal={"leases": ["l1"]}))
        messages = iter(outgoing)
        assert next(messages).HasField("renewal")
        threading.Thread(target=lambda: [None for _ in messages], daemon=True).start()
        ssh.settimeout(30)
        began = time.monotonic()
        ssh.sendall(bytes(8 << 20))
        assert time.monotonic() - began < 5, "and goes on once there is room"
    line.close()
    outgoing.end()
