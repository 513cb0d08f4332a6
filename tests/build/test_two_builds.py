"""Two builds on one store at once: each distinct step runs once, both finish, and both see what is printed."""

from __future__ import annotations

import glob
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from program import Ran

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"
MOUNT = "RUN --mount=type=cache,target=/c touch /c/here; "


def hold(name: str) -> str:
    """What a step waits with, for a minute at most, until `let_go`: a second program takes long to start at times."""
    return f"n=0; until [ -e /c/{name} ] || [ $((n+=1)) -gt 1200 ]; do sleep 0.05; done"


TALKING = BASE + (
    f"{MOUNT}for i in 1 2 3 4 5 6 7 8 9 10; do echo first $i; sleep 0.05; case $i in 4|7) {hold('go$i')};; esac; done; printf 'no end'\n"
    "RUN echo second; echo 2 > /two\n"
    "RUN for i in 1 2 3; do echo third $i; sleep 0.05; done\n"
    "COPY f /f\n"
)
FIRST = [*(f"first {number}" for number in range(1, 11)), "no end"]
HOLDS = (("first 4", "go4"), ("first 7", "go7"))
THIRD = [f"third {number}" for number in range(1, 4)]


def start(program: Program, context: Path, name: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Its events go to a file: a build that nobody reads from would stop, and the other one wait for it."""
    with (program.root / f"{name}.events").open("wb") as stderr:
        return subprocess.Popen(
            program.command("build", context, *program.base(), "--progress", "rawjson", *arguments),
            env=program.env, stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip


def end(program: Program, process: subprocess.Popen[bytes], name: str) -> Ran:
    try:
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    lines = (program.root / f"{name}.events").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return Ran(code, "", "\n".join(line for line in lines if not line.startswith("{")), events)


def let_go(program: Program, name: str) -> None:
    (here,) = program.store.glob("mounts/*/here")
    here.with_name(name).touch()


def wait_for_line(program: Program, process: subprocess.Popen[bytes], name: str, line: str) -> None:
    deadline = time.monotonic() + 60
    while f'"{line}"' not in (program.root / f"{name}.events").read_text():
        assert process.poll() is None, "it ended before it printed the line"
        assert time.monotonic() < deadline, f"{name} did not print {line!r}"
        time.sleep(0.005)


def both(program: Program, context: Path, delay: float, *holds: tuple[str, str]) -> tuple[Ran, Ran]:
    """holds: a line, and what keeps the step from going on until both have printed that."""
    one = start(program, context, "one", "--iidfile", program.root / "one")
    time.sleep(delay)
    two = start(program, context, "two", "--iidfile", program.root / "two")
    for line, name in holds:
        wait_for_line(program, one, "one", line)
        wait_for_line(program, two, "two", line)
        let_go(program, name)
    return end(program, one, "one"), end(program, two, "two")


@pytest.mark.parametrize("delay", [0.05, 0.0, 0.2, 0.4])
def test_each_step_runs_once_and_both_see_it(program: Program, delay: float) -> None:
    context = program.project(TALKING, {"f": "f"})
    builds = both(program, context, delay, *HOLDS)
    for build in builds:
        build.ok()
        assert build.output("1.1") == FIRST
        assert build.output("1.2") == ["second"]
        assert build.output("1.3") == THIRD
    executed = sorted(builds[0].executed + builds[1].executed)
    assert executed == ["1.1", "1.2", "1.3", "1.4", "base.1"]
    assert (program.root / "one").read_text() == (program.root / "two").read_text() != ""


def test_the_one_that_waits_sees_each_line_when_it_is_printed(program: Program) -> None:
    """At each hold both have printed what the step had, which could not go on before."""
    context = program.project(TALKING, {"f": "f"})
    one, two = both(program, context, 0.1, *HOLDS)
    assert one.ok().output("1.1") == two.ok().output("1.1") == FIRST
    waited = [event for build in (one, two) for event in build.events if event["event"] == "waiting"]
    assert {event["id"] for event in waited} >= {"1.1"}


def test_one_that_is_killed_leaves_the_step_to_the_other(program: Program) -> None:
    context = program.project(TALKING, {"f": "f"})
    one = start(program, context, "one")
    wait_for_line(program, one, "one", "first 2")
    two = start(program, context, "two")
    wait_for_line(program, two, "two", "first 4")
    os.kill(one.pid, signal.SIGKILL)
    one.wait(timeout=20)
    for _, name in HOLDS:
        let_go(program, name)
    build = end(program, two, "two").ok()
    assert "1.1" in build.executed
    lines = build.output("1.1")
    assert lines[-len(FIRST) :] == FIRST, "its own run, after what the other had printed"
    assert lines[: -len(FIRST)] == FIRST[: len(lines) - len(FIRST)]
    assert "first 4" in lines[: -len(FIRST)]
    # What the killed one left goes with the next build that runs something.
    (context / "f").write_text("g")
    assert program.build(context).ok().executed == ["1.4"]


def test_a_long_log_reaches_both_whole(program: Program) -> None:
    """More than what memory holds of a log, and more than one poll takes."""
    context = program.project(BASE + f"{MOUNT}echo begin; {hold('go')}; seq 100000 250000; sleep 0.3; echo end\n")
    for build in both(program, context, 0.05, ("begin", "go")):
        lines = build.ok().output("1.1")
        assert len(lines) == 150_003
        assert (lines[:2], lines[-2:]) == (["begin", "100000"], ["250000", "end"])


def test_a_secret_is_in_neither(program: Program) -> None:
    """I4: what others follow is redacted as the log is, at all times."""
    secret = "s3cr3t-of-two-builds"
    (program.root / "token").write_text(secret)
    context = program.project(BASE + f"{MOUNT.replace('RUN', 'RUN --mount=type=secret,id=t')}echo begin; {hold('go1')}; cat /run/secrets/t; echo; {hold('go2')}\n")
    option = ("--secret", f"id=t,src={program.root / 'token'}")
    one = start(program, context, "one", *option)
    two = start(program, context, "two", *option)
    for name, process in (("one", one), ("two", two)):
        wait_for_line(program, process, name, "begin")
    let_go(program, "go1")
    files: set[bool] = set()
    while one.poll() is None or two.poll() is None:
        # Not Path.glob, which raises if a directory goes while it looks.
        for name in glob.glob("runs/*/log-*", root_dir=program.store):
            try:
                text = (program.store / name).read_bytes()
            except FileNotFoundError:
                continue
            files.add(b"[secret]" in text)
            assert secret.encode() not in text
        if True in files:
            let_go(program, "go2")
        time.sleep(0.01)
    assert True in files, "the file was seen"
    for build in (end(program, one, "one"), end(program, two, "two")):
        assert build.ok().output("1.1") == ["begin", "[secret]"]
