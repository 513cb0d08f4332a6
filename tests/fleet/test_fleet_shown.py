"""`buildgraph fleet` on a terminal, its help, and what doctor says of workers."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import BASE, Cluster
from scheduled import key

from compiler.fleet.asking import state_json

if TYPE_CHECKING:

    from program import Program
    from scheduled import Scheduled

WATCHED = 8.0
"""Seconds."""


def on_terminal(program: Program, *arguments: str) -> str:
    """What a command that goes on shows in a while, from its first word on: a busy machine takes long to start it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(program.command(*arguments), stdout=theirs, env={**program.env, "COLUMNS": "200", "LINES": "40"})
    os.close(theirs)
    shown = b""
    silent = threading.Timer(120, process.kill)
    silent.start()
    with contextlib.suppress(OSError):  # as a terminal ends
        while data := os.read(ours, 65536):
            if not shown:
                silent.cancel()
                threading.Timer(WATCHED, process.terminate).start()
            shown += data
    silent.cancel()
    os.close(ours)
    process.wait(20)
    return shown.decode()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="workers of these tests mount as root")
def test_times_go_on_while_nothing_happens(cluster: Cluster) -> None:
    cluster.join("w1", slots=1)
    client = cluster.client()
    context = client.project(f"{BASE} AS one\nRUN sleep 60; echo one\nFROM base\nRUN sleep 60; echo two\nCOPY --from=one /bin/ls /x\n")
    building = subprocess.Popen(
        client.command("build", context, *client.base(), "--remote", cluster.url), env=client.env, stderr=subprocess.DEVNULL
    )
    try:
        cluster.wait(lambda: len(cluster.state()["running"]) == 1 and cluster.state()["queue_length"] == 1)
        shown = on_terminal(cluster.client("observer"), "fleet", "--remote", cluster.url)
    finally:
        building.terminate()
        building.wait(20)
    runs = [float(text) for text in re.findall(r"RUN sleep 60; echo \w+ +w1 +(\d+\.\d)s", shown)]
    waits = [float(text) for text in re.findall(r"RUN sleep 60; echo \w+ +(\d+\.\d)s", shown)]
    for seconds in (runs, waits):
        assert len(seconds) >= 4, shown
        assert seconds[-1] - seconds[0] > 2.0
        assert seconds == sorted(seconds)


def test_whoever_looks_later_sees_later_times(fleet: Scheduled) -> None:
    fleet.worker().joined()
    build = fleet.build()
    build.execute(key(1))
    build.execute(key(2))
    fleet.wait_for(lambda: fleet.state().queue_length == 1)
    first = fleet.state()
    time.sleep(1.5)
    second = fleet.state()
    assert second.at - first.at > 1.4
    assert second.running[0].seconds - first.running[0].seconds > 1.4
    assert second.queued[0].seconds - first.queued[0].seconds > 1.4


def test_what_a_worker_can_do_is_told_to_programs(fleet: Scheduled) -> None:
    fleet.worker(features=["rootless", "crun"]).joined()
    state = fleet.state()
    assert list(state.workers[0].features) == ["crun", "rootless"]
    assert state_json(state)["workers"][0]["features"] == ["crun", "rootless"]
    assert fleet.worker("w2", features=map(str, range(100))).failure()[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_help_shows_only_what_means_something(tmp_path: Path) -> None:
    def help_of(*command: str) -> str:
        return subprocess.run([sys.executable, "-m", "compiler", *command, "--help"], capture_output=True, text=True, check=True).stdout

    for command in (("fleet",), ("fleet", "cordon")):
        assert "--remote URL" in help_of(*command)
        assert "--remote-read" not in help_of(*command)
    assert "--remote-read" in help_of("fleet", "why")
    assert "gives out steps" in " ".join(help_of("serve").split())
    assert "--worker-label K=V" in help_of("build")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may lack what is needed")
def test_doctor_says_that_this_machine_can_be_a_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compiler", "doctor", "--store", str(tmp_path / "store")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"✓ worker: this machine can be one of a fleet, with {os.cpu_count()} slots: `buildgraph worker" in told.stdout
    without = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "BUILDGRAPH_RUNTIME": "/none"})
    assert "• worker: this machine cannot be one of a fleet" in without.stdout
