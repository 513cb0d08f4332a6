"""A token whose messages must be small publishes and reads all the same."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
from serving import make_token
from team import warnings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeMachine, Serve


@pytest.mark.slow
def test_a_token_with_the_least_message_publishes_what_others_hit(machine: MakeMachine, serve: Serve, tmp_path: Path) -> None:
    """Layers of less than a batch, of more, and of more than a chunk; then a version of the last one."""
    store = tmp_path / "team"
    small = make_token(store, "--name", "ci", "--scope", "read,write", "--max-message", "64k")
    other = make_token(store, "--name", "ann")
    serving = serve(store=store)
    remote = f"grpc://{serving.address}"
    first = machine("a", remote=remote, env={"BUILDGRAPH_TOKEN": small})
    second = machine("b", remote=remote, env={"BUILDGRAPH_TOKEN": other})
    third = machine("c", remote=remote, env={"BUILDGRAPH_TOKEN": small})
    steps = "FROM busybox\nCOPY few /few\nCOPY more /more\nCOPY many /many\nRUN cat /few /more /many | wc -c > /size\n"
    files = {name: base64.b64encode(os.urandom(size)).decode() for name, size in (("few", 1000), ("more", 200_000), ("many", 6_000_000))}
    assert not warnings(first.build(first.project(steps, files)).ok())
    found = second.build(second.project(steps, files)).ok()
    assert not found.executed
    assert not warnings(found)
    files["many"] += "the end"
    assert not warnings(first.build(first.project(steps, files)).ok())
    found = third.build(third.project(steps, files)).ok()
    assert not found.executed
    assert not warnings(found)
    assert not serving.events("refused")
