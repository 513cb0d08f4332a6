"""A remote that is down, slow, full, lying or of another kind costs time, never a wrong image (I7)."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from team import CacheServer, Proxy, warnings

from compiler.cli.build import MOST_TURNS, _until_there
from compiler.failure import Contradicted
from compiler.remote_cache import LayerGone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import MakeMachine

STEPS = """
FROM busybox
RUN echo one > /one
RUN cat /one > /two && head -c 300000 /dev/zero >> /two
COPY source /source
RUN cat /source /two > /three
"""
NOBODY = "grpc://127.0.0.1:9"


@pytest.fixture
def proxy(server: CacheServer) -> Iterator[Proxy]:
    made = Proxy(server.port)
    yield made
    made.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_remote_that_is_down_is_one_warning_and_a_build(machine: MakeMachine) -> None:
    alone = machine("a", remote=NOBODY)
    started = time.monotonic()
    ran = alone.build(alone.project(STEPS, {"source": "x"})).ok()
    assert len(ran.executed) == 5
    assert len(warnings(ran)) == 1
    assert NOBODY in warnings(ran)[0]
    assert "the build goes on without it" in warnings(ran)[0]
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_remote_that_never_answers_is_left_after_seconds(machine: MakeMachine, proxy: Proxy) -> None:
    proxy.delay = 60.0
    alone = machine("a", remote=proxy.url)
    started = time.monotonic()
    ran = alone.build(alone.project(STEPS, {"source": "x"})).ok()
    assert len(ran.executed) == 5
    assert len(warnings(ran)) == 1
    assert time.monotonic() - started < 55


def test_what_could_not_be_published_the_next_build_publishes(machine: MakeMachine, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    context = first.project(STEPS, {"source": "x"})
    first.program.build(context, "--remote", NOBODY).ok()
    again = first.build(context).ok()
    assert not again.executed
    assert not second.build(second.project(STEPS, {"source": "x"})).ok().executed


@pytest.mark.slow
def test_a_remote_that_goes_away_while_a_step_runs(machine: MakeMachine, server: CacheServer, proxy: Proxy) -> None:
    """The build finds it there, and cannot publish any more."""
    alone = machine("a", remote=proxy.url)
    length = "5.0731"  # tells its process from others
    context = alone.project(f"FROM busybox\nRUN sleep {length}; echo x > /x\nRUN echo y > /y\n")

    def cut() -> None:
        until = time.monotonic() + 60
        while subprocess.run(["pgrep", "-f", f"^sleep {length}$"], stdout=subprocess.DEVNULL, check=False).returncode:
            if time.monotonic() > until:
                return
            time.sleep(0.05)
        proxy.refuse = True
        for each in list(proxy._open):
            each.close()

    thread = threading.Thread(target=cut)
    thread.start()
    ran = alone.build(context).ok()
    thread.join()
    assert proxy.refuse
    assert len(ran.executed) == 3
    assert len(warnings(ran)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [100, 3_000, 40_000, 200_000])
def test_a_connection_that_breaks_is_made_again(machine: MakeMachine, server: CacheServer, proxy: Proxy, tmp_path: Path, allowed: int) -> None:
    """However early it breaks, the files are right; if it lasts for a message at a time, nothing runs."""
    first, second = machine("a"), machine("b", remote=proxy.url)
    first.build(first.project(STEPS, {"source": "x"}), "-o", f"type=tar,dest={tmp_path / 'a.tar'}").ok()
    proxy.allow = allowed
    ran = second.build(second.project(STEPS, {"source": "x"}), "-o", f"type=tar,dest={tmp_path / 'b.tar'}").ok()
    assert proxy.cuts
    if not ran.executed:
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    else:
        assert warnings(ran)


def test_bytes_that_are_changed_on_the_way_are_refused(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    """The server's own files, behind its back: what it gives then is not what the digest says."""
    dockerfile = "FROM busybox\nRUN head -c 200000 /dev/urandom > /random\nRUN wc -c < /random > /size\n"
    first, second = machine("a"), machine("b")
    first.build(first.project(dockerfile)).ok()

    server.change_members(flip, smallest=100_000)
    ran = second.build(second.project(dockerfile), "-o", f"type=local,dest={tmp_path / 'out'}").ok()
    assert (tmp_path / "out/size").read_text() == "200000\n"
    assert (tmp_path / "out/random").stat().st_size == 200_000
    assert ran.executed, "the step whose layer was wrong was run here"
    assert any(re.search(r"other bytes|is sha256|gave for the layer", text) for text in warnings(ran)), warnings(ran)
    assert any(re.search(r"[0-9a-f]{64}", text) for text in warnings(ran)), "by digest"


@pytest.mark.parametrize("epoch", [(), ("--build-arg", "SOURCE_DATE_EPOCH=1700000000")])
def test_however_many_layers_come_as_other_bytes_the_build_ends(
    machine: MakeMachine, server: CacheServer, tmp_path: Path, epoch: tuple[str, ...]
) -> None:
    """Each is found out as it is fetched, and the build begins again without it: not for ever."""
    files = {f"f{n}": random.Random(n).randbytes(70_000) for n in range(100)}
    dockerfile = "FROM busybox\n" + "".join(f"COPY {name} /{name}\n" for name in files)
    first, second = machine("a"), machine("b")
    first.build(first.project(dockerfile, dict(files))).ok()
    server.change_members(flip, smallest=50_000)
    ran = second.build(second.project(dockerfile, dict(files)), *epoch, "-o", f"type=local,dest={tmp_path / 'out'}").ok()
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files
    assert len(ran.executed) == 101


def test_a_server_that_never_has_what_it_promises_is_left() -> None:
    made: list[str] = []
    promised = True

    def make() -> str:
        made.append("made")
        if promised:
            raise LayerGone("sha256:1", "it is gone")
        if len(made) < MOST_TURNS:  # what is not promised any more was made of something else
            raise Contradicted("1.1")
        return "an image"

    def leave_remote() -> None:
        nonlocal promised
        promised = False

    assert _until_there(make, leave_remote) == "an image"
    assert len(made) == MOST_TURNS


def test_a_layer_that_the_remote_lost_is_made_again_without_a_word(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    context = second.project(STEPS, {"source": "x"})
    second.build(context).ok()
    assert server.forget_blobs()
    ran = second.build(context, "-o", f"type=local,dest={tmp_path / 'out'}").ok()
    assert len(ran.executed) == 5
    assert (tmp_path / "out/three").read_bytes()[:5] == b"xone\n"
    assert not warnings(ran)
    # Nor is anything shown of what was thought to be known: each step once, and no failure.
    ends = [event["id"] for event in ran.events if event["event"] == "finished"]
    assert len(ends) == len(set(ends)) == 5
    exports = [event["status"] for event in ran.events if event["event"] == "task" and "exporting" in event["name"]]
    assert exports == ["started", "done"]
    again = second.build(context).ok()
    assert not again.executed


def test_a_command_that_only_a_lost_layer_hid_is_run(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    """What runs commands is made ready before the connection, with which threads come: no process is forked after."""
    steps = "FROM busybox AS build\nRUN head -c 100000 /dev/zero > /made\nFROM busybox\nCOPY --from=build /made /made\nCOPY source /source\n"
    first, second = machine("a"), machine("b")
    first.build(first.project(steps, {"source": "x"})).ok()
    second.build(second.project(steps, {"source": "x"})).ok()
    assert server.forget_blobs()
    ran = second.build(second.project(steps, {"source": "y"}), "-o", f"type=local,dest={tmp_path / 'out'}").ok()
    assert (tmp_path / "out/made").stat().st_size == 100_000
    assert "build.1" in ran.executed


def test_a_layer_that_is_lost_while_steps_need_it(machine: MakeMachine, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    second.build(second.project(STEPS, {"source": "x"})).ok()
    assert server.forget_blobs()
    ran = second.build(second.project(STEPS, {"source": "y"})).ok()
    assert len(ran.executed) == 5, "the last step needs all below, of which nothing is left"
    assert not warnings(ran)
    ends = [(event["id"], event["status"]) for event in ran.events if event["event"] == "finished"]
    assert sorted(ends) == sorted((name, "done") for name in ran.executed), "each step once, and no failure"


def test_a_server_that_was_begun_anew_is_given_everything_again(machine: MakeMachine, tmp_path: Path, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    context = first.project(STEPS, {"source": "x"})
    first.build(context).ok()
    port = server.port
    server.stop()
    server.directory = tmp_path / "anew"
    server.start(port)
    # Nothing is asked as long as nothing is to be done; then it is noticed.
    changed = first.project(STEPS, {"source": "y"})
    first.build(changed).ok()
    found = second.build(second.project(STEPS, {"source": "y"})).ok()
    assert not found.executed


def test_a_token_does_not_go_over_plain_lines(machine: MakeMachine) -> None:
    alone = machine("a", remote="grpc://cache.example:8980", env={"BUILDGRAPH_TOKEN": "bgt_secret"})
    ran = alone.build(alone.project(STEPS, {"source": "x"})).failed(2)
    assert "without TLS" in ran.stderr
    assert "bgt_secret" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--remote", "http://there"], "grpc[s]://"),
        (["--remote", "grpc://there:99999"], "grpc[s]://"),
        (["--remote", "grpc://there/../x"], "no namespace"),
        (["--remote", "grpc://there", "--remote-read", "a//b"], "no namespace"),
        (["--remote", "grpc://there/pr/blobs"], "keeps the word 'blobs' for itself"),
        (["--remote", "grpc://there", "--remote-write", "uploads"], "keeps the word 'uploads' for itself"),
        (["--remote", "grpc://there", "--remote-read", "a" * 101], "has 101 characters; 100 are the most"),
        (["--remote-write", "main"], "need a remote"),
        (["--remote", "grpc://there", "--no-remote"], "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(machine: MakeMachine, arguments: list[str], said: str) -> None:
    alone = machine("a")
    ran = alone.program.build(alone.project(STEPS, {"source": "x"}), *arguments).failed(2)
    assert said in ran.stderr


def test_who_may_only_read_is_told_nothing_unless_they_want_to_write(machine: MakeMachine, tmp_path: Path) -> None:
    reading = CacheServer(tmp_path / "reading", "read")
    try:
        alone = machine("a", remote=reading.url)
        assert not warnings(alone.build(alone.project(STEPS, {"source": "x"})).ok())
        insisting = machine("b", "--remote-write", "main", remote=reading.url)
        told = warnings(insisting.build(insisting.project(STEPS, {"source": "x"})).ok())
        assert len(told) == 1
        assert "does not let us write to namespace main" in told[0]
    finally:
        reading.stop()


def test_who_may_do_nothing_is_told_once(machine: MakeMachine, tmp_path: Path) -> None:
    closed = CacheServer(tmp_path / "closed", "execute")
    try:
        alone = machine("a", remote=closed.url)
        ran = alone.build(alone.project(STEPS, {"source": "x"})).ok()
        assert len(ran.executed) == 5
        assert len(warnings(ran)) == 1
    finally:
        closed.stop()


def test_no_remote_uses_none(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b", env={"BUILDGRAPH_REMOTE": NOBODY})
    first.build(first.project(STEPS, {"source": "x"})).ok()
    ran = second.program.build(second.project(STEPS, {"source": "x"}), "--no-remote").ok()
    assert not warnings(ran)
    assert len(ran.executed) == 5


def test_the_environment_and_the_file_name_the_remote(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    first, second, third = machine("a"), machine("b", env={"BUILDGRAPH_REMOTE": server.url}), machine("c")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    assert not second.program.build(second.project(STEPS, {"source": "x"})).ok().executed
    (tmp_path / "work").mkdir()
    (tmp_path / "work/buildgraph.toml").write_text(f'[remote]\nurl = "{server.url}"\nread = ["pr/7", ""]\nwrite = "pr/7"\n')
    import os

    third.program.env["PYTHONPATH"] = os.getcwd()
    ran = third.program.build(third.project(STEPS, {"source": "x"}), cwd=tmp_path / "work").ok()
    assert not ran.executed
