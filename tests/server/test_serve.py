"""`buildgraph serve`: how it starts, what it says, how it ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from buildgraph.v1 import bytestream_pb2
from serving import Refusal, call, digest_of, make_token

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect, Serve


def test_without_tokens_and_without_anonymous_it_says_both_ways_and_ends(tmp_path: Path) -> None:
    done = call("serve", "--store", tmp_path / "store", "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    assert "buildgraph serve token create" in done.stderr
    assert "--anonymous read" in done.stderr
    assert not (tmp_path / "store").exists(), "nothing was made for a server that did not start"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0_and_without_a_traceback(serve: Serve, connect: Connect, number: int) -> None:
    serving = serve("--anonymous", "write")
    digest = connect(serving).put(b"kept")
    code, text = serving.stop(number)
    assert code == 0
    assert not text
    assert [line["event"] for line in serving.events("stopped")] == ["stopped"]
    again = serve("--anonymous", "read")
    assert connect(again).read(digest) == b"kept"


def test_it_drains_no_new_calls_but_those_that_run_end_well(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    data = os.urandom(3 << 20)
    digest = digest_of(data)
    name = f"uploads/u/blobs/{digest.hash}/{digest.size_bytes}"
    go_on = threading.Event()

    def slowly():
        yield bytestream_pb2.WriteRequest(resource_name=name, data=data[: 1 << 20])
        go_on.wait(20)
        yield bytestream_pb2.WriteRequest(write_offset=1 << 20, data=data[1 << 20 : 2 << 20])
        yield bytestream_pb2.WriteRequest(write_offset=2 << 20, data=data[2 << 20 :], finish_write=True)

    upload = client.streams.Write.future(slowly(), timeout=30)
    until = time.monotonic() + 10
    while not serving.metric("buildgraph_streams_open") and time.monotonic() < until:
        time.sleep(0.02)
    assert serving.get("/healthz") == (200, "ok\n")
    serving.process.send_signal(signal.SIGTERM)
    serving.wait_for("draining")
    assert serving.get("/healthz") == (503, "draining\n")
    with pytest.raises(Exception, match=r".") as refused:
        connect(serving).hello()
    assert refused.value.code().name in ("UNAVAILABLE", "CANCELLED")
    go_on.set()
    assert upload.result().committed_size == len(data)
    assert serving.finish() == (0, "")


def test_grace_is_the_longest_that_is_waited_for_calls(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write", "--grace", "1s")
    client = connect(serving)
    stop = threading.Event()

    def never():
        yield bytestream_pb2.WriteRequest(resource_name=f"uploads/u/blobs/{'a' * 64}/3000000", data=b"x")
        stop.wait(30)

    upload = client.streams.Write.future(never(), timeout=30)
    until = time.monotonic() + 10
    while not serving.metric("buildgraph_streams_open") and time.monotonic() < until:
        time.sleep(0.02)
    began = time.monotonic()
    assert serving.stop()[0] == 0
    assert time.monotonic() - began < 25
    stop.set()
    assert upload.exception() is not None


def test_a_second_signal_ends_it_at_once(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write", "--grace", "60s")
    client = connect(serving)
    stop = threading.Event()

    def never():
        yield bytestream_pb2.WriteRequest(resource_name=f"uploads/u/blobs/{'a' * 64}/3000000", data=b"x")
        stop.wait(60)

    upload = client.streams.Write.future(never(), timeout=60)
    until = time.monotonic() + 10
    while not serving.metric("buildgraph_streams_open") and time.monotonic() < until:
        time.sleep(0.02)
    serving.process.send_signal(signal.SIGTERM)
    serving.wait_for("draining")
    began = time.monotonic()
    code, text = serving.stop()
    assert code == 143
    assert "Traceback" not in text
    assert time.monotonic() - began < 25
    stop.set()
    assert upload.exception() is not None


def test_a_taken_port_is_one_message_and_exit_code_4(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--listen", "--http"):
            other = "--http" if option == "--listen" else "--listen"
            done = call(
                "serve", "--store", tmp_path / "store", "--anonymous", "read", option, f"127.0.0.1:{port}", other, "127.0.0.1:0"
            )
            assert done.returncode == 4, done.stderr
            assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
            assert "Traceback" not in done.stderr
            assert [line.split()[0] for line in done.stderr.splitlines()] == ["error:", "hint:"], done.stderr


def test_a_store_that_is_served_is_not_cleared(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write")
    digest = connect(serving).put(b"kept")
    done = call("cache", "clear", "--store", serving.store)
    assert done.returncode == 4
    assert "a build or a server is using the store" in done.stderr
    assert connect(serving).read(digest) == b"kept"


def test_a_store_of_another_version_is_one_message_and_exit_code_4(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"no database" * 1000)
    done = call("serve", "--store", tmp_path / "store", "--anonymous", "read", "--listen", "127.0.0.1:0")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--anonymous", "all"], "one of none, read"),
        (["--namespace-limit", "pr/*"], "PATTERN=SIZE"),
        (["--namespace-limit", "../x=1GB"], "no pattern"),
        (["--max-used-space", "much"], "no size"),
        (["--grace", "soon"], "no age"),
        (["--tls-cert", "x.pem"], "belong together"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = call("serve", "--store", tmp_path / "store", "--anonymous", "read", "--listen", "127.0.0.1:0", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_table_serve_of_buildgraph_toml_says_the_same_as_options(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "buildgraph.toml").write_text(
        '[serve]\nanonymous = "nobody"\n[serve.namespace-limits]\n"pr/*" = "5GB"\n'
    )
    done = call("serve", "--listen", "127.0.0.1:0", cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 2
    assert "'nobody' is not one of" in done.stderr
    (tmp_path / "buildgraph.toml").write_text('[serve]\nanonymus = "read"\n')
    done = call("serve", cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 2
    assert "unknown key serve.anonymus" in done.stderr


def test_a_log_can_be_rotated(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    serving = serve("--anonymous", "write")
    old = tmp_path / "old.jsonl"
    serving.log.rename(old)
    serving.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while not serving.log.exists() and time.monotonic() < until:
        time.sleep(0.02)
    connect(serving).publish("after the rotation")
    assert serving.wait_for("published")["method"] == "UpdateActionResult"
    assert "published" not in old.read_text()


@pytest.mark.slow
def test_a_store_that_cannot_be_written_any_more_ends_the_server_with_exit_code_4(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    kept = client.put(b"kept")
    # As a full disk: whatever lies beyond the first page of a file cannot be written.
    resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    with Refusal() as refused:
        client.publish("a")
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert "Traceback" not in refused.text
    code, text = serving.finish()
    assert code == 4
    assert "cannot write to the store" in text
    assert "Traceback" not in text
    again = serve("--anonymous", "write")
    assert connect(again).read(kept) == b"kept"
    assert connect(again).publish("a")


def test_the_first_thing_that_a_new_user_does_works(tmp_path: Path, serve: Serve, connect: Connect) -> None:
    """Two commands: a token, a server."""
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read,write")
    serving = serve()
    client = connect(serving, secret)
    digest = client.put(b"hello")
    assert client.read(digest) == b"hello"
