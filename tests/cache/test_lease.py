"""Leases exclude threads and processes, and die with their holder (I6)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.errors import StoreProblem
from cache.lease import MAX_NOTE, Lease, acquire, sweep_leases

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent.parent
HOLD = """
import sys
from cache.lease import acquire
lease = acquire(sys.argv[1], "key", cancelled=lambda: False)
print("held", flush=True)
sys.stdin.readline()
lease.release()
"""


def take(store: Path, key: str = "key") -> Lease:
    lease = acquire(str(store), key, cancelled=lambda: False)
    assert lease is not None
    return lease


def hold_elsewhere(store: Path) -> subprocess.Popen[str]:
    """A process that holds the lease until it reads a line, or is killed."""
    command = [sys.executable, "-c", HOLD, str(store)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_released_lease_leaves_nothing(tmp_path: Path) -> None:
    with take(tmp_path):
        assert os.listdir(tmp_path / "leases") == ["key"]
    assert os.listdir(tmp_path / "leases") == []
    take(tmp_path).release()


def test_keys_are_independent(tmp_path: Path) -> None:
    with take(tmp_path, "a"), take(tmp_path, "b"):
        assert sorted(os.listdir(tmp_path / "leases")) == ["a", "b"]


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    inside = []
    most = []
    told = []

    def work() -> None:
        for _ in range(5):
            lease = acquire(str(tmp_path), "key", cancelled=lambda: False, waiting=lambda: told.append(1))
            assert lease is not None
            with lease:
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 25
    assert max(most) == 1
    assert 0 < len(told) <= 25, "told once a wait"
    assert os.listdir(tmp_path / "leases") == []


def test_processes_exclude_each_other(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path)
    assert process.stdin is not None
    let_go = process.stdin
    waited: list[str] = []

    def look(_: str) -> None:
        waited.append("looked")
        if len(waited) == 10:
            let_go.write("\n")
            let_go.flush()

    lease = acquire(str(tmp_path), "key", cancelled=lambda: False, waiting=lambda: waited.append("told"), poll=look)
    assert lease is not None
    assert waited.count("told") == 1
    assert waited.count("looked") >= 9, "it was held until the other process let go"
    lease.release()
    process.communicate(timeout=60)


def test_a_wait_can_be_cancelled(tmp_path: Path) -> None:
    with take(tmp_path):
        end = time.monotonic() + 0.1
        assert acquire(str(tmp_path), "key", cancelled=lambda: time.monotonic() > end) is None
        assert os.listdir(tmp_path / "leases") == ["key"], "the holder's stays"
    assert acquire(str(tmp_path), "other", cancelled=lambda: True) is None


@pytest.mark.alone
def test_a_killed_holder_loses_it_at_once(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    started = time.monotonic()
    take(tmp_path).release()
    assert time.monotonic() - started < 20


def test_only_what_nobody_holds_is_swept(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path)
    (tmp_path / "leases" / "left").write_text("")
    with take(tmp_path, "mine"):
        sweep_leases(str(tmp_path))
        assert sorted(os.listdir(tmp_path / "leases")) == ["key", "mine"]
    process.kill()
    process.communicate(timeout=60)
    sweep_leases(str(tmp_path))
    assert os.listdir(tmp_path / "leases") == []
    sweep_leases(str(tmp_path / "nothing"))


def test_sweeping_never_takes_a_lease_from_its_holder(tmp_path: Path) -> None:
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            sweep_leases(str(tmp_path))

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(200):
            with take(tmp_path):
                assert os.listdir(tmp_path / "leases") == ["key"]
    finally:
        done.set()
        sweeper.join()


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("")
    with pytest.raises(StoreProblem, match="cannot write to the store"):
        take(tmp_path)


def test_who_waits_is_handed_what_the_holder_tells(tmp_path: Path) -> None:
    heard: list[str] = []
    with take(tmp_path) as held:

        def wait() -> None:
            lease = acquire(str(tmp_path), "key", cancelled=lambda: False, poll=heard.append)
            assert lease is not None
            lease.release()

        waiter = threading.Thread(target=wait)
        waiter.start()
        for note in ("", "a/long/path/of/the first", "short", "with\nline ends", "x" * MAX_NOTE, "na\udcffme"):
            held.tell(note)
            until(lambda: note in heard[-1:] or "\n" in note or len(note) >= MAX_NOTE)  # noqa: B023
    waiter.join(60)
    assert list(dict.fromkeys(heard)) == ["", "a/long/path/of/the first", "short", "na\udcffme"], "each whole, or not at all"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_note_of_a_killed_holder_is_not_the_next_ones(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "key").write_text("left\n")
    heard: list[str] = []
    with take(tmp_path):
        assert acquire(str(tmp_path), "key", cancelled=lambda: len(heard) > 2, poll=heard.append) is None
    assert set(heard) == {""}
