"""Attempts: what is tried again, what is not, and what the user is told; and how times are written."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from cache.errors import EnvironmentProblem, exit_code
from cache.lmdb_store import LmdbStore
from worker.action import Cancelled, CommandFailed, Order, TimedOut, spelled
from worker.attempts import attempts
from worker.output import Output
from worker.process_tree import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


class Step:
    """A step that fails in the given ways, one after the other, and then works."""

    def __init__(self, store: LmdbStore, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.lines: list[str] = []
        self.output = Output(store, self.lines.append)
        self.times: list[float] = []

    def try_all(self, retry: int, cancelled: Callable[[], bool] = lambda: False, stopped: Callable[[], bool] = lambda: False) -> str:
        order = Order({}, {}, {}, self.lines.append, cancelled, retry=retry)
        return attempts(self.once, order, self.output, stopped)

    def once(self) -> str:
        self.times.append(time.monotonic())
        if self.failures:
            raise self.failures.pop(0)
        return "made"


def test_a_step_that_works_is_run_once_and_says_nothing(store: LmdbStore) -> None:
    step = Step(store)
    assert (step.try_all(5), len(step.times), step.lines) == ("made", 1, [])


def test_each_failure_is_told_and_the_pauses_grow(store: LmdbStore) -> None:
    step = Step(store, CommandFailed(1, []), TimedOut(90.0, []))
    assert step.try_all(5) == "made"
    assert step.lines == [
        "[attempt 1 of 6: the command ended with exit code 1; trying again in 1 s]",
        "[attempt 2 of 6: the command ran longer than 1 min 30 s (timeout=1m30s); trying again in 2 s]",
    ]
    first, second, third = step.times
    assert second - first >= 1
    assert third - second >= 2
    log, batch = step.output.keep()
    assert log is not None
    assert b"[attempt 2 of 6:" in batch.blobs[log]


@pytest.mark.parametrize("failure", [Cancelled(), EnvironmentProblem("no space")])
def test_what_another_attempt_cannot_help_is_raised_at_once(store: LmdbStore, failure: BaseException) -> None:
    step = Step(store, failure)
    with pytest.raises(type(failure)):
        step.try_all(5)
    assert (len(step.times), step.lines) == (1, [])


def test_a_command_that_was_killed_with_the_build_is_not_begun_again(store: LmdbStore) -> None:
    step = Step(store, CommandFailed(-9, []))
    with pytest.raises(CommandFailed):
        step.try_all(5, stopped=lambda: True)
    assert (len(step.times), step.lines) == (1, [])


@pytest.mark.alone
def test_a_pause_ends_when_nobody_waits_any_more(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.attempts.FIRST_PAUSE", 10.0)
    step = Step(store, CommandFailed(1, []))
    started = time.monotonic()
    with pytest.raises(Cancelled):
        step.try_all(5, cancelled=lambda: time.monotonic() > started + 0.2)
    assert len(step.times) == 1
    assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (0.25, "0.25s", "0.25 s"),
        (1.0, "1s", "1 s"),
        (90.0, "1m30s", "1 min 30 s"),
        (600.0, "10m", "10 min"),
        (5400.0, "1h30m", "1 h 30 min"),
        (86400.0, "1d", "1 d"),
        (90061.5, "1d1h1m1.5s", "1 d 1 h 1 min 1.5 s"),
    ],
)
def test_how_times_are_written(seconds: float, short: str, long: str) -> None:
    assert (spelled(seconds), spelled(seconds, " ")) == (short, long)


def test_running_out_of_time_is_a_failure_of_the_command() -> None:
    error = TimedOut(600.0, ["last line"])
    assert error.message == str(error) == "the command ran longer than 10 min (timeout=10m)"
    assert (exit_code(error), error.tail) == (1, ["last line"])


def test_descendants_are_found_through_generations_and_the_dead_left_out() -> None:
    script = "sleep 0 & sh -c 'sleep 300 & sleep 300 & echo; wait' & exec 1>&-; exec sleep 300"
    process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        until = time.monotonic() + 10
        while len(descendants(process.pid)) != 3 and time.monotonic() < until:  # `sleep 0` stays a zombie
            time.sleep(0.01)
        found = descendants(process.pid)
        assert len(found) == 3
        assert set(descendants(found[0])) == set(found[1:]), "parents come first"
    finally:
        for pid in [*descendants(process.pid), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
