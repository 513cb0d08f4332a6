"""I6: killed at any point, the next build works, and nothing is left: no mount, no process, no temporary file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"


def start(program: Program, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program.command("build", *arguments, *program.base(), "--progress", "plain"),
        env=program.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def processes_with(marker: str) -> list[str]:
    """Command lines of live processes that hold the marker."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and directory.name != str(os.getpid()):
            try:
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if marker in command and (directory / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(command)
            except OSError:
                continue
    return found


@pytest.mark.parametrize("way", ["kill", "terminate", "interrupt"])
def test_a_build_that_is_stopped_in_a_step(each_way: Program, way: str) -> None:
    marker = f"31{os.getpid()}{abs(hash(way)) % 1000}"
    project = each_way.project(BASE + f"RUN echo kept > /kept\nRUN echo started; sleep {marker}\n")
    process = start(each_way, project)
    wait_for(lambda: processes_with(f"sleep {marker}"))
    number = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}[way]
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors
    wait_for(lambda: not processes_with(marker))
    assert process.returncode == {"kill": -9, "terminate": 143, "interrupt": 130}[way]
    (project / "Dockerfile").write_text(BASE + "RUN echo kept > /kept\nRUN echo works > /x\n")
    again = each_way.build(project).ok()
    assert again.executed == ["1.2"] if way != "kill" else again.executed[-1] == "1.2"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
def test_a_build_that_is_killed_at_any_time(program: Program, delay: float) -> None:
    """Among the places: a publish, since each step writes a layer of some size."""
    steps = "".join(f"RUN dd if=/dev/urandom of=/f{n} bs=64k count=8 2>/dev/null\nCOPY f /c{n}\n" for n in range(6))
    # A secret is no part of a step: with it the build never ends before it is killed, without it at once.
    last = "RUN --mount=type=secret,id=wait if [ -e /run/secrets/wait ]; then sleep 600; fi\n"
    project = program.project(BASE + steps + last, {"f": "x" * 200_000})
    process = start(program, project, "--secret", f"id=wait,src={project / 'f'}")
    wait_for(lambda: (program.store / "runs").is_dir() and any((program.store / "runs").iterdir()))
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not processes_with(str(program.store)))
    program.build(project).ok()
    blobs = [path for path in program.store.rglob("blobs/*/*") if path.is_file()]
    from blake3 import blake3

    for path in blobs:
        assert blake3(path.read_bytes()).hexdigest() == path.parent.name + path.name, "a blob says what its name says"
    assert program.build(project).ok().executed == []


def test_what_a_killed_build_left_goes_also_if_nothing_is_to_be_done(program: Program) -> None:
    """As after a kill between the last step and the end."""
    marker = f"33{os.getpid()}"
    project = program.project(BASE + f"RUN test -e /f || sleep {marker}\n", {"f": ""})
    done = program.project(BASE + "COPY f /f\n", {"f": ""}, name="done")
    program.build(done).ok()
    process = start(program, project)
    wait_for(lambda: processes_with(f"sleep {marker}"))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not processes_with(marker))
    assert list((program.store / "runs").iterdir())
    assert program.build(done).ok().executed == []


@pytest.mark.parametrize("kind", ["oci", "docker", "tar", "local"])
def test_an_export_that_is_killed(program: Program, kind: str) -> None:
    project = program.project("FROM scratch\nCOPY big /big\n", {"big": os.urandom(60 << 20)})
    program.build(project, "-t", "big:1").ok()
    target = program.root / "exports" / ("image" if kind == "local" else "image.tar")
    target.parent.mkdir()
    process = start(program, project, "-t", "big:1", "-o", f"type={kind},dest={target}")
    wait_for(lambda: any(target.parent.rglob("*")) or process.poll() is not None)
    process.kill()
    process.communicate(timeout=60)
    if kind != "local":
        assert not target.exists() or target.stat().st_size > 60 << 20, "whole or not there"
    program.build(project, "-t", "big:1", "-o", f"type={kind},dest={target}").ok()
    assert [path.name for path in target.parent.iterdir()] == [target.name], "nothing temporary is left"


def test_a_runtime_that_is_killed_fails_the_step(program: Program) -> None:
    marker = f"32{os.getpid()}"
    project = program.project(BASE + f"RUN sleep {marker}\n")
    process = start(program, project)
    wait_for(lambda: processes_with(f"sleep {marker}"))
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if (directory / "cmdline").read_bytes() == f"sleep\0{marker}\0".encode():
                    os.kill(int(directory.name), signal.SIGKILL)
            except OSError:
                continue
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"137" in errors or b"signal 9" in errors
