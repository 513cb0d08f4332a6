"""Results that trusted workers signed, found on the server by those who believe nobody else."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2
from buildgraph.v1 import remote_execution_pb2 as pb
from cluster import BASE, Cluster, places

from cache.remote.action_results import digest_of, name_by, signed_text
from cache.remote.client import Client
from cache.remote_settings import RemoteSettings
from compiler.fleet.signed_results import find_signed
from worker.fleet.identity import Identity, public_key
from worker.fleet.signed_texts import outcome_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from program import Program, Ran

    from cache.promises import Promise

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="workers of these tests mount as root")
DOCKERFILE = f"{BASE}\nCOPY f /f\nRUN head -c 8 /dev/urandom | od -An -tx8 | tee /r\nRUN cat /r /r\n"
THERE = ("--local-slots", "0")


def project(client: Program) -> Path:
    """The same files with the same times on every machine."""
    context = client.project(DOCKERFILE, {"f": "signed"})
    os.utime(context / "f", (1e9, 1e9))
    return context


def build(own: Cluster, client: Program, *arguments: str) -> tuple[Ran, str]:
    """What it says, and what the command made up."""
    out = client.root / "out"
    ran = own.build(client, project(client), *arguments, "-o", out, cwd=client.root).ok()
    return ran, (out / "r").read_text()


def made_and_gone(own: Cluster) -> tuple[Ran, str, str]:
    """A build that a worker made, which then went away; what the command made up, and the worker's fingerprint."""
    (worker,) = own.join("w1")
    key = own.state()["workers"][0]["key"]
    maker = own.client("maker")
    made, random = build(own, maker, *THERE)
    assert worker.stop() == 0
    return made, random, key


def careful(own: Cluster, name: str, key: str) -> Program:
    """A machine that trusts this worker alone."""
    client = own.client(name)
    (client.root / "buildgraph.toml").write_text(f'[remote]\ntrusted-workers = ["{key}"]\n')
    return client


def test_they_are_found_where_no_worker_is_left(own: Cluster) -> None:
    _, random, key = made_and_gone(own)
    client = careful(own, "careful", key)
    found, same = build(own, client)
    assert same == random
    assert found.executed == ["base.1", "1.1"], "what no worker makes"
    assert places(found) == {}
    assert build(own, client)[0].executed == []

    stranger = careful(own, "stranger", "ed25519:" + "B" * 43)
    ran, other = build(own, stranger)
    assert ran.executed == ["base.1", "1.1", "1.2", "1.3"]
    assert other != random


def by_another_worker(done: fleet_pb2.ActionDone) -> None:
    other = Identity.load("other.key")
    done.outcome.worker_key = other.public
    done.outcome.signature = other.sign(outcome_text("", done.key, done.outcome))


def by_another_under_the_same_key(done: fleet_pb2.ActionDone) -> None:
    done.outcome.signature = Identity.load("other.key").sign(outcome_text("", done.key, done.outcome))


def of_another_action(done: fleet_pb2.ActionDone) -> None:
    done.key = "ab" * 32


def with_another_layer(done: fleet_pb2.ActionDone) -> None:
    done.outcome.result.layer.content = "cd" * 32


def without_a_signature(done: fleet_pb2.ActionDone) -> None:
    done.outcome.signature = b""


FORGED: list[Callable[[fleet_pb2.ActionDone], None]] = [
    by_another_worker, by_another_under_the_same_key, of_another_action, with_another_layer, without_a_signature,
]  # fmt: skip


def forged(message: pb.ActionResult, forge: Callable[[fleet_pb2.ActionDone], None]) -> pb.ActionResult:
    """As it would look if somebody else had written it."""
    made, done = pb.ActionResult(), fleet_pb2.ActionDone()
    made.CopyFrom(message)
    _, signed = made.execution_metadata.auxiliary_metadata
    assert signed.Unpack(done)
    forge(done)
    signed.Pack(done)
    return made


def test_whoever_may_write_cannot_forge_one(own: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, _, trusted = made_and_gone(own)
    key = next(event["key"] for event in made.events if event["event"] == "finished" and event["id"] == "1.2")
    name = name_by("blake3", signed_text(key, public_key(trusted)))
    client = Client(RemoteSettings(False, own.server.address, ("",), "", own.token))

    def put(message: pb.ActionResult) -> None:
        client.caller.call(
            client.actions.UpdateActionResult,
            pb.UpdateActionResultRequest(
                action_digest=digest_of(name), digest_function=client.function, action_result=message
            ),
        )

    def find() -> Promise | None:
        return find_signed(client, "", key, frozenset((trusted,)))

    try:
        good = find()
        assert good is not None
        ((_, kept),) = client.action_results("", [name])
        for forge in FORGED:
            put(forged(kept, forge))
            assert find() is None, forge.__name__
        put(kept)
        assert find() == good
        unsigned = pb.ActionResult()
        unsigned.CopyFrom(kept)
        del unsigned.execution_metadata.auxiliary_metadata[1]
        put(unsigned)
        assert find() is None
    finally:
        client.close()
