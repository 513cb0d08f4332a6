"""The keeper: it runs programs in mounts of its own, and takes everything with it when it or its parent dies (I6)."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.errors import EnvironmentProblem
from tests.cache.layers import needs_root
from worker.keeper_client import BundleFile, Keeper, OutOfTime, View

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [needs_root, pytest.mark.alone]
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    opened = Keeper(str(tmp_path / "keeper"), userxattr=False, cgroups=False)
    yield opened
    opened.close()
    assert not (tmp_path / "keeper").exists()


def run(keeper: Keeper, argv: list[str], views: list[View] | None = None, files: dict[str, BundleFile] | None = None) -> tuple[int, str]:
    """Exit status and output. `{step}` in an argument is the step's directory."""
    output = os.memfd_create("output")
    number = keeper.new_step()
    wait = keeper.start(number, [part.replace("{step}", keeper.step_directory(number)) for part in argv], views or [], output, files or {})
    status = wait()
    os.lseek(output, 0, os.SEEK_SET)
    text = os.read(output, 1 << 20).decode()
    os.close(output)
    return status, text


def wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def running(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if f"sleep {mark}" in text and "python" not in text:
            found.append(text)
    return found


def test_a_program_runs_and_its_status_and_output_come_back(keeper: Keeper) -> None:
    assert run(keeper, ["/bin/true"]) == (0, "")
    assert run(keeper, ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]) == (7, "out\nerr\n")
    assert run(keeper, ["/bin/sh", "-c", "kill -9 $$"])[0] == -9


def test_the_program_sees_little(keeper: Keeper) -> None:
    status, text = run(keeper, ["/bin/sh", "-c", "env; ls /proc/self/fd; ls /proc | grep -c '^[0-9]'; cat"])
    lines = text.split()
    assert status == 0
    assert {line.partition("=")[0] for line in lines if "=" in line} <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}, "the shell's own"
    assert int(lines[-1]) < 8, "only the processes of the keeper's own PID namespace"


def test_files_of_the_bundle_lie_on_a_tmpfs_with_mode_and_owner(keeper: Keeper, tmp_path: Path) -> None:
    files = {"config.json": BundleFile(b"{}"), "secret": BundleFile(b"s" * 3_000_000, 0o400, 5, 6)}
    command = "stat -c '%a %u %g %s' {step}/config.json {step}/secret; stat -f -c %T {step}"
    assert run(keeper, ["/bin/sh", "-c", command], files=files) == (0, "644 0 0 2\n400 5 6 3000000\ntmpfs\n")
    assert list((tmp_path / "keeper").iterdir()) == [], "nobody outside sees them"


def view(tmp_path: Path, *lowers: str, writable: bool) -> View:
    paths = []
    for number, script in enumerate(lowers):
        path = tmp_path / f"lower{number}"
        path.mkdir()
        subprocess.run(["sh", "-ec", script], cwd=path, check=True)
        paths.append({"directory": str(path)})
    if not writable:
        return View("rootfs", tuple(paths))
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    return View("rootfs", tuple(paths), str(tmp_path / "upper"), str(tmp_path / "work"))


def test_layers_are_one_tree_and_changes_go_to_the_upper(keeper: Keeper, tmp_path: Path) -> None:
    views = [view(tmp_path, "echo 0 > a; echo 0 > b", "echo 1 > b", writable=True)]
    assert run(keeper, ["/bin/sh", "-c", "cd {step}/rootfs; cat a b; echo new > c; rm a"], views) == (0, "0\n1\n")
    assert sorted(os.listdir(tmp_path / "upper")) == ["a", "c"]
    assert (tmp_path / "upper/c").read_text() == "new\n"
    assert (tmp_path / "lower0/a").exists()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text(), "its mounts are its own"


@pytest.mark.parametrize("count", [2, 1])
def test_a_view_without_an_upper_cannot_be_written(keeper: Keeper, tmp_path: Path, count: int) -> None:
    views = [view(tmp_path, *["echo 0 > a"] * count, writable=False)]
    status, text = run(keeper, ["/bin/sh", "-c", "cd {step}/rootfs; cat a; echo x > a"], views)
    assert status != 0
    assert "Read-only file system" in text
    assert (tmp_path / "lower0/a").read_text() == "0\n"
    assert text.startswith("0\n")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_view_that_cannot_be_made_read_only_leaves_its_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(target: str, attributes: int) -> None:
        raise OSError(number, "it will not")

    monkeypatch.setattr("worker.mounts.restrict", fail)
    opened = Keeper(str(tmp_path / "keeper"), userxattr=False, cgroups=False)
    views = [view(tmp_path, "echo 0 > a", writable=False)]
    if number == errno.ENOSYS:  # an old kernel: the runtime makes it read-only
        assert run(opened, ["/bin/sh", "-c", "cat {step}/rootfs/a"], views) == (0, "0\n")
    else:
        with pytest.raises(EnvironmentProblem, match="it will not"):
            run(opened, ["/bin/true"], views)
    opened.close()
    assert (tmp_path / "lower0/a").read_text() == "0\n"


def test_hundreds_of_layers(keeper: Keeper, tmp_path: Path) -> None:
    views = [view(tmp_path, *[f"echo {number} > f{number}" for number in range(200)], writable=True)]
    assert run(keeper, ["/bin/sh", "-c", "ls {step}/rootfs | wc -l"], views) == (0, "200\n")


def test_steps_run_side_by_side_from_many_threads(keeper: Keeper) -> None:
    results: list[tuple[int, str]] = []
    started = time.monotonic()
    threads = [
        threading.Thread(target=lambda n=number: results.append(run(keeper, ["/bin/sh", "-c", f"sleep 1; exit {n}"])))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(status for status, _ in results) == list(range(8))
    assert time.monotonic() - started < 6, "one after the other they take 8 s"


def test_a_program_that_is_not_there_and_a_mount_that_cannot_be_are_errors(keeper: Keeper, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="No such file"):
        run(keeper, ["/bin/nothing"])
    missing = View("rootfs", ({"directory": str(tmp_path / "nothing")},), str(tmp_path), str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="cannot start a build step"):
        run(keeper, ["/bin/true"], [missing])
    assert run(keeper, ["/bin/true"]) == (0, ""), "and the keeper goes on"


def test_a_request_that_is_too_large_is_refused(keeper: Keeper) -> None:
    with pytest.raises(EnvironmentProblem, match="too many layers"):
        run(keeper, ["/bin/echo", "x" * 200_000])
    with pytest.raises(EnvironmentProblem, match="too many layers"):
        run(keeper, ["/bin/true"], files={f"f{number}": BundleFile(b"") for number in range(64)})
    assert run(keeper, ["/bin/true"]) == (0, "")


def test_kill_all_ends_what_runs_and_the_keeper_goes_on(keeper: Keeper) -> None:
    mark = f"41{os.getpid()}"
    output = os.open(os.devnull, os.O_WRONLY)
    wait = keeper.start(keeper.new_step(), ["/bin/sh", "-c", f"sleep {mark} & sleep {mark}"], [], output, {})
    wait_for(lambda: len(running(mark)) >= 2)
    keeper.kill_all()
    assert wait() == -9
    wait_for(lambda: not running(mark))
    assert run(keeper, ["/bin/true"]) == (0, "")
    os.close(output)


def test_one_step_is_killed_and_the_others_go_on(keeper: Keeper) -> None:
    mark, other = f"44{os.getpid()}", f"45{os.getpid()}"
    output = os.open(os.devnull, os.O_WRONLY)
    numbers = [keeper.new_step(), keeper.new_step()]
    waits = [
        keeper.start(number, ["/bin/sh", "-c", f"sleep {each} & sleep {each}; exit 5"], [], output, {})
        for number, each in zip(numbers, (mark, other), strict=True)
    ]
    wait_for(lambda: len(running(mark)) >= 2 and len(running(other)) >= 2)
    keeper.kill(numbers[0])
    with pytest.raises(OutOfTime):
        waits[0]()
    wait_for(lambda: not running(mark))
    assert len(running(other)) >= 2
    keeper.kill(numbers[0])
    keeper.kill(12345)
    assert run(keeper, ["/bin/true"]) == (0, "")
    keeper.kill_all()
    waits[1]()
    os.close(output)


def test_closing_ends_what_runs(tmp_path: Path) -> None:
    mark = f"42{os.getpid()}"
    keeper = Keeper(str(tmp_path / "keeper"), userxattr=False, cgroups=False)
    output = os.open(os.devnull, os.O_WRONLY)
    wait = keeper.start(keeper.new_step(), ["/bin/sleep", mark], [], output, {})
    wait_for(lambda: running(mark))
    keeper.close()
    assert not running(mark)
    with pytest.raises(EnvironmentProblem, match="has ended"):
        wait()
    with pytest.raises(EnvironmentProblem, match="has ended"):
        keeper.start(keeper.new_step(), ["/bin/true"], [], output, {})
    keeper.kill_all()
    os.close(output)


def test_a_keeper_that_is_killed_is_an_error_and_no_hang(tmp_path: Path) -> None:
    mark = f"43{os.getpid()}"
    keeper = Keeper(str(tmp_path / "keeper"), userxattr=False, cgroups=False)
    output = os.open(os.devnull, os.O_WRONLY)
    wait = keeper.start(keeper.new_step(), ["/bin/sleep", mark], [], output, {})
    wait_for(lambda: running(mark))
    os.kill(keeper._pid, signal.SIGKILL)
    with pytest.raises(EnvironmentProblem, match="has ended"):
        wait()
    with pytest.raises(EnvironmentProblem, match="has ended"):
        keeper.start(keeper.new_step(), ["/bin/true"], [], output, {})
    wait_for(lambda: not running(mark))
    keeper.close()
    os.close(output)


CHILD = """
import os, sys, time
from worker.keeper_client import Keeper
keeper = Keeper(sys.argv[1], userxattr=False, cgroups=False)
keeper.start(keeper.new_step(), ["/bin/sh", "-c", f"setsid sleep {sys.argv[2]} & sleep {sys.argv[2]}"], [], 1, {})
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_parent_kills_the_keeper_and_everything_in_it(tmp_path: Path, number: signal.Signals) -> None:
    mark = f"44{os.getpid()}{int(number)}"
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "keeper"), mark], cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for(lambda: len(running(mark)) >= 2)
    process.send_signal(number)
    process.wait(60)
    wait_for(lambda: not running(mark))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_a_keeper_that_cannot_start_says_what_to_do(tmp_path: Path) -> None:
    """As a user who may not make mounts."""
    code = (
        "import os, sys\nfrom worker.keeper_client import Keeper\nfrom cache.errors import EnvironmentProblem\nimport concurrent.futures.thread\n"
        "os.chmod(sys.argv[1], 0o777)\nos.setresuid(65534, 65534, 65534)\n"
        "try:\n    Keeper(sys.argv[1] + '/keeper', userxattr=False, cgroups=False)\n"
        "except EnvironmentProblem as error:\n    print(error.message, error.hint)\n"
    )
    for path in tmp_path.parents:
        if path.name.startswith("pytest-"):
            path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "cannot isolate build steps" in done.stdout, done.stderr
    assert "Operation not permitted" in done.stdout
    assert "buildgraph doctor" in done.stdout
