"""Both ends of a lease's line with a server between them that may lie or lose what it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from buildgraph.v1 import fleet_pb2 as pb

from cache.errors import CorruptBlob
from compiler.fleet.lease_line import LeaseLine
from compiler.fleet.trust import Distrusted, Trust
from worker.fleet.agent_line import WorkerLine
from worker.fleet.identity import Identity
from worker.fleet.signed_texts import lease_text

if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS = "ab" * 32, "cd" * 32
SECRETS = {"token": b"correct horse battery staple"}


class Holder:
    """A worker that is trusted, and holds the lease of an action."""

    def __init__(self, directory: Path, namespace: str, key: str) -> None:
        self.sent: list[pb.Sealed] = []
        self.line = WorkerLine("boot.1", (namespace, key), self.sent.append)
        identity = Identity.load(str(directory / "worker.key"))
        self.fingerprint = identity.fingerprint
        self.started = pb.ActionStarted(
            key=key, lease="boot.1", worker="w1", seal_key=self.line.seal_key, worker_key=identity.public,
            signature=identity.sign(lease_text(namespace, key, "boot.1", self.line.seal_key)),
        )  # fmt: skip


@pytest.mark.parametrize(("namespace", "key"), [("team", THEIRS), ("others", OURS)])
def test_a_server_cannot_have_secrets_sealed_for_a_command_of_its_own(tmp_path: Path, namespace: str, key: str) -> None:
    holder = Holder(tmp_path, namespace, key)
    holder.started.key = OURS  # which the build wants, in `team`
    with pytest.raises(Distrusted):
        Trust("team", frozenset({holder.fingerprint})).check_lease(holder.started, OURS)
    LeaseLine(holder.started, "team", {}, holder.line.take).give(SECRETS, {})
    with pytest.raises(CorruptBlob, match="for another action"):
        holder.line.given(5, lambda: False)


def test_the_command_that_the_build_wants_gets_them(tmp_path: Path) -> None:
    holder = Holder(tmp_path, "team", OURS)
    Trust("team", frozenset({holder.fingerprint})).check_lease(holder.started, OURS)
    LeaseLine(holder.started, "team", {"default": "/agent"}, holder.line.take).give(SECRETS, {"http_proxy": "p"})
    assert holder.line.given(5, lambda: False) == (SECRETS, {"http_proxy": "p"}, ("default",))
