"""Standard streams and small outputs: closed, full, devices, another encoding, an early Ctrl-C."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

COPY = "FROM scratch\nCOPY a /a\n"
FULL = "cannot write to standard output: No space left on device"


def shell(program: Program, redirections: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The program started by a shell that does something to its streams first."""
    command = ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *program.command(*arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env={**program.env, **env}, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("closed", "output"),
    [
        ("0<&-", ["-o", "type=tar"]),
        ("1>&-", ["-o", "type=tar"]),
        ("0<&- 1>&-", ["-o", "type=oci,dest=-"]),
        ("0<&- 1>&-", ["-q"]),
        ("0<&- 1>&- 2>&-", ["-o", "type=tar"]),
    ],
)
def test_closed_streams_cost_the_output_and_never_the_store(program: Program, closed: str, output: list[str]) -> None:
    project = program.project(COPY, {"a": "x" * 100_000})
    program.build(project).ok()
    assert shell(program, closed, "build", project, "-o", f"type=tar,dest={program.root}/out.tar").returncode == 0
    done = shell(program, closed, "build", project, *output)
    if "1>" in closed:
        assert done.returncode == 4
        assert "2>" in closed or "standard output" in done.stderr
    else:
        assert done.returncode == 0
    # The store was neither overwritten nor left half done.
    assert program.build(project, "-t", "whole:1").ok().cached == ["0.1"]


def test_what_prints_nothing_needs_no_stdout(program: Program) -> None:
    assert shell(program, "0<&- 1>&- 2>&-", "build", program.project(COPY, {"a": ""}), "-t", "quiet:1").returncode == 0


def test_a_dockerfile_from_a_closed_stdin(program: Program) -> None:
    done = shell(program, "<&-", "build", "-f", "-", program.project(COPY))
    assert done.returncode == 4
    assert "cannot read standard input: it is closed" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["image", "ls"], ["cache", "du"], ["plan"], ["build", "-q"], ["check"]])
def test_a_full_stdout_is_an_error(program: Program, arguments: list[str]) -> None:
    words = [*arguments, program.project(COPY, {"a": ""})] if arguments[0] in ("plan", "check") or "-q" in arguments else arguments
    done = shell(program, ">/dev/full", *words)
    assert (done.returncode, done.stderr.count(FULL)) == (4, 1), done.stderr


def test_an_output_without_the_characters_that_names_have(program: Program) -> None:
    project = program.project("FROM scratch\nCOPY ä /é\n", {"ä": ""})
    for form in ("tree", "json"):
        done = shell(program, "", "plan", "--format", form, project, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "COPY ? /?" in done.stdout


def test_results_go_into_devices_and_pipes(program: Program, tmp_path: Path) -> None:
    project = program.project(COPY, {"a": ""})
    for target in ("/dev/stdout", "/dev/fd/1"):
        piped = shell(program, "| cat", "build", project, "--iidfile", target)
        assert piped.stdout.startswith("sha256:")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        program.build(project, "--metadata-file", pipe).ok()
        assert "containerimage.config.digest" in reader.communicate()[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_written_to_and_not_replaced(program: Program, tmp_path: Path) -> None:
    null = tmp_path / "null"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    project = program.project(COPY, {"a": ""})
    program.build(project, "--iidfile", null, "--metadata-file", null).ok()
    assert stat.S_ISCHR(null.stat().st_mode)


def test_nobody_can_prepare_the_temporary_name(program: Program, tmp_path: Path) -> None:
    """The name that it used to have, for all process ids that come into question."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    probe = os.fork()
    if probe == 0:
        os._exit(0)
    os.waitpid(probe, 0)
    for pid in range(probe, probe + 200):
        (out / f"iid.buildgraph-{pid}").symlink_to(victim)
    program.build(program.project(COPY, {"a": ""}), "--iidfile", out / "iid").ok()
    assert victim.read_text() == "mine"
    assert (out / "iid").read_text().startswith("sha256:")


def test_ctrl_c_at_any_time_is_no_traceback(program: Program) -> None:
    """From the moment that the program's own code runs, which the interpreter's start does not belong to."""
    code = (
        "import os, signal, sys\n"
        "delay = float(sys.argv.pop(1))\n"
        "signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))\n"
        "from compiler.cli.main import entry\n"
        "signal.setitimer(signal.ITIMER_REAL, delay)\n"
        "entry()\n"
    )
    project = program.project("FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\nRUN sleep 20\n")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for delay in (0.02, 0.05, 0.1, 0.2):
        arguments = [sys.executable, "-c", code, str(delay), "build", str(project), *program.base()]
        began = time.monotonic()
        done = subprocess.run(arguments, cwd=root, env=program.env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (128 + signal.SIGINT, False), done.stderr
        assert time.monotonic() - began < 15
    # One that was stopped while it made its directory leaves that to the next build.
    program.build(program.project(COPY, {"a": ""})).ok()
