"""Tokens and TLS, from the client's side: what is said of them, and what is never said."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from authority import Authority
from serving import make_token
from team import Proxy, warnings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeMachine, Serve
    from team import CacheServer, Machine

STEPS = "FROM busybox\nRUN echo one > /one; sleep 0.2\nCOPY source /source\nRUN cat /source /one > /two\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "tls").mkdir()
    return Authority(tmp_path / "tls")


def at_work(machine: Machine, tmp_path: Path, toml: str) -> dict[str, object]:
    """Options for a call from a directory whose buildgraph.toml says that."""
    directory = tmp_path / f"work-{machine.root.name}"
    directory.mkdir()
    (directory / "buildgraph.toml").write_text(toml)
    machine.program.env["PYTHONPATH"] = os.getcwd()
    return {"cwd": directory}


@pytest.mark.slow
def test_a_token_and_a_server_that_proves_who_it_is(machine: MakeMachine, serve: Serve, authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("server", "IP:127.0.0.1")
    secret = make_token(tmp_path / "team", "--name", "ann", "--scope", "read,write")
    serving = serve("--tls-cert", cert, "--tls-key", key, store=tmp_path / "team")
    (tmp_path / "token").write_text(f"{secret}\n")
    toml = f'[remote]\nurl = "grpcs://{serving.address}"\nca = "{authority.cert}"\ntoken-file = "{tmp_path / "token"}"\n'
    first, second = machine("a"), machine("b")
    ran = first.program.build(first.project(STEPS, {"source": "x"}), **at_work(first, tmp_path, toml)).ok()
    assert not warnings(ran)
    options = at_work(second, tmp_path, toml)
    found = second.program.build(second.project(STEPS, {"source": "x"}), **options).ok()
    assert not found.executed
    told = second.program.call("doctor", **options).stdout
    assert "you are ann" in told
    assert secret not in told
    # Without the authority, and with a wrong token: one line, a build, and no secret in it.
    for line in ("", f'ca = "{authority.cert}"\n'):
        third = machine(f"c{len(line)}", env={"BUILDGRAPH_TOKEN": "bgt_wrong_0000"} if line else None)
        options = at_work(third, tmp_path, f'[remote]\nurl = "grpcs://{serving.address}"\n{line}')
        if not line:
            third.program.env["BUILDGRAPH_TOKEN"] = secret
        ran = third.program.build(third.project(STEPS, {"source": "x"}), **options).ok()
        assert ran.executed
        assert len(warnings(ran)) == 1
        assert secret not in str(ran)
        assert "bgt_wrong" not in str(ran.events)
    assert secret not in serving.log.read_text()


@pytest.mark.slow
def test_a_token_that_may_only_read_reads(machine: MakeMachine, serve: Serve, tmp_path: Path) -> None:
    store = tmp_path / "team"
    writer = make_token(store, "--name", "ci", "--scope", "read,write")
    reader = make_token(store, "--name", "ann", "--scope", "read")
    serving = serve(store=store)
    first = machine("a", remote=f"grpc://{serving.address}", env={"BUILDGRAPH_TOKEN": writer})
    second = machine("b", remote=f"grpc://{serving.address}", env={"BUILDGRAPH_TOKEN": reader})
    first.build(first.project(STEPS, {"source": "x"})).ok()
    found = second.build(second.project(STEPS, {"source": "x"})).ok()
    assert not found.executed
    changed = second.build(second.project(STEPS, {"source": "y"})).ok()
    assert not warnings(changed)
    third = machine("c", remote=f"grpc://{serving.address}", env={"BUILDGRAPH_TOKEN": writer})
    assert third.build(third.project(STEPS, {"source": "y"})).ok().executed, "nothing of it was published"


@pytest.mark.slow
def test_a_namespace_that_may_not_be_read_is_left_out(machine: MakeMachine, serve: Serve, tmp_path: Path) -> None:
    store = tmp_path / "team"
    writer = make_token(store, "--name", "ci", "--scope", "read,write", "--namespace", "main")
    branch = make_token(store, "--name", "pr", "--grant", "read:main", "--grant", "read,write:pr/*")
    serving = serve(store=store)
    first = machine("a", remote=f"grpc://{serving.address}/main", env={"BUILDGRAPH_TOKEN": writer})
    assert not warnings(first.build(first.project(STEPS, {"source": "x"})).ok())
    reads = ["--remote-read", "private", "--remote-read", "main", "--remote-read", "secret", "--remote-write", "pr/1"]
    second = machine("b", *reads, remote=f"grpc://{serving.address}", env={"BUILDGRAPH_TOKEN": branch})
    found = second.build(second.project(STEPS, {"source": "x"})).ok()
    assert not found.executed, "main, which may be read, has it"
    assert len(warnings(found)) == 1
    assert "namespaces private and secret are not asked" in warnings(found)[0]
    told = second.call("doctor", *reads, "--remote", f"grpc://{serving.address}").stdout
    assert "reads main, not private, secret, which it does not allow, publishes in pr/1" in told
    # And what it makes goes where it may write, all the same.
    assert second.build(second.project(STEPS, {"source": "y"})).ok().executed
    third = machine("c", "--remote-read", "private", "--remote-read", "main", "--remote-read", "pr/1", "--remote-write", "-", remote=second.remote, env={"BUILDGRAPH_TOKEN": branch})
    assert not third.build(third.project(STEPS, {"source": "y"})).ok().executed


@pytest.mark.slow
def test_where_nothing_may_be_read_one_can_still_publish(machine: MakeMachine, serve: Serve, tmp_path: Path) -> None:
    store = tmp_path / "team"
    branch = make_token(store, "--name", "pr", "--scope", "read,write", "--namespace", "pr/*")
    serving = serve(store=store)
    env = {"BUILDGRAPH_TOKEN": branch}
    first = machine("a", "--remote-read", "main", "--remote-write", "pr/1", remote=f"grpc://{serving.address}", env=env)
    ran = first.build(first.project(STEPS, {"source": "x"})).ok()
    assert len(warnings(ran)) == 1
    assert "namespace main is not asked" in warnings(ran)[0]
    second = machine("b", remote=f"grpc://{serving.address}/pr/1", env=env)
    assert not second.build(second.project(STEPS, {"source": "x"})).ok().executed


@pytest.mark.slow
def test_a_slow_remote_is_used_with_patience(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    first = machine("a")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    proxy = Proxy(server.port)
    proxy.delay = 0.05
    try:
        second = machine("b", remote=proxy.url)
        ran = second.build(second.project(STEPS, {"source": "x"}), "-o", f"type=local,dest={tmp_path / 'out'}").ok()
        assert not ran.executed
        assert not warnings(ran)
    finally:
        proxy.close()


@pytest.mark.slow
def test_a_server_that_is_killed_under_a_build(machine: MakeMachine, serve: Serve, tmp_path: Path) -> None:
    serving = serve("--anonymous", "write", store=tmp_path / "team")
    alone = machine("a", remote=f"grpc://{serving.address}")
    threading.Timer(1.0, lambda: serving.process.send_signal(signal.SIGKILL)).start()
    ran = alone.build(alone.project("FROM busybox\nRUN sleep 2; echo x > /x\nRUN cat /x > /y\n")).ok()
    assert len(ran.executed) == 3
    assert len(warnings(ran)) == 1
    assert "the next build publishes" in warnings(ran)[0] or "goes on without it" in warnings(ran)[0]


def test_an_interrupt_does_not_wait_for_the_remote(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    import subprocess

    proxy = Proxy(server.port)
    try:
        alone = machine("a", remote=proxy.url)
        context = alone.project("FROM busybox\nRUN echo started; sleep 60\n")
        command = alone.program.command("build", context, *alone.program.base(), "--remote", proxy.url, "--progress", "plain")
        process = subprocess.Popen(command, env=alone.program.env, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        while "started" not in (line := process.stderr.readline()) or "echo" in line:
            assert line, "it ended"
        proxy.delay = 30.0
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        process.stderr.close()
        assert time.monotonic() - began < 25
    finally:
        proxy.close()
