"""The store with several processes at once, killed ones among them, and what they leave as scratch."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3

from cache.lmdb_store import LmdbStore
from cache.run_dir import RunDirectory, sweep
from tests.cache.stored import ROOT, check

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[False, True], ids=["caller-writes", "writer-thread"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    if request.param:
        opened.start_writer()
    yield opened
    opened.close()


WRITER = """
import os, sys
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.store import Batch, NewFile
store = LmdbStore(sys.argv[1])
store.start_writer()
last = int(sys.argv[2])
number = 0
print("started", flush=True)
while number != last:
    small, large = os.urandom(50), os.urandom(40_000 + number % 7)
    path = store.scratch("new")
    with open(path, "wb") as file:
        file.write(large)
    digests = [Digest.of(small), Digest.of(large)]
    text = " ".join(map(str, digests)).encode()
    future = store.submit(
        Batch(blobs={digests[0]: small}, files=(NewFile(digests[1], path),), records=(("results", f"{os.getpid()}-{number:06}", text),))
    )
    number += 1
    if number % 5 == 0:
        future.result()
        print(f"{os.getpid()}-{number - 1:06}", flush=True)
store.close()
"""


def start_writer(directory: Path, count: int = -1) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def test_two_processes_use_one_store_at_once(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path))
    processes = [start_writer(tmp_path, 60) for _ in range(2)]
    seen = [0]
    while any(process.poll() is None for process in processes):
        seen.append(check(store))
    for process in processes:
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert check(store) == 120
    assert seen == sorted(seen)
    store.close()


def test_a_killed_writer_leaves_a_store_that_is_true(tmp_path: Path) -> None:
    """I3, I6: whatever was told to be durable is there, whatever is there is whole."""
    durable: set[str] = set()
    for attempt in range(8):
        process = start_writer(tmp_path)
        assert process.stdout is not None
        if attempt >= 4:  # a slow machine may have made nothing durable so far
            durable.add(process.stdout.readline().strip())
        time.sleep(0.02 + 0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
        with process.stdout:
            durable |= {line for line in process.stdout.read().splitlines() if "-" in line}
        store = LmdbStore(str(tmp_path))
        check(store)
        assert durable <= {key for key, _ in store.scan("results")}
        assert Path(store.scratch("x")).parent.is_dir()
        assert len(os.listdir(tmp_path / "runs")) == 1, "the dead writer's scratch is swept"
        store.close()
    assert durable
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            assert blake3(path.read_bytes()).hexdigest() == path.parent.name + path.name


# scratch directories of runs


def test_scratch_paths_are_new_and_go_with_the_run(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path))
    paths = {store.scratch("x") for _ in range(10)}
    assert len(paths) == 10
    for path in paths:
        Path(path).mkdir()
        Path(path, "file").write_text("x")
        Path(path).chmod(0)
    store.close()
    assert list((tmp_path / "runs").iterdir()) == []


def test_discarding_is_harmless_twice(store: LmdbStore) -> None:
    path = store.scratch("x")
    Path(path).write_text("x")
    store.discard(path)
    store.discard(path)
    assert not os.path.exists(path)


def test_runs_that_live_are_not_swept(tmp_path: Path) -> None:
    mine = RunDirectory(str(tmp_path))
    Path(mine.path, "file").write_text("x")
    assert sweep(str(tmp_path)) == 0
    assert Path(mine.path, "file").read_text() == "x"
    mine.remove()
    assert sweep(str(tmp_path)) == 0
    assert os.listdir(tmp_path / "runs") == []


def test_a_dead_run_is_swept_with_whatever_a_step_left(tmp_path: Path) -> None:
    code = "import os, sys\nfrom cache.run_dir import RunDirectory\nprint(RunDirectory(sys.argv[1]).path)\nos.kill(os.getpid(), 9) if 0 else os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True)
    left = Path(done.stdout.strip() or next((tmp_path / "runs").iterdir()))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (left / "upper" / "deep").mkdir(parents=True)
    (left / "upper" / "deep" / "file").write_text("x")
    (left / "upper" / "link").symlink_to(outside)
    (left / "upper" / "deep").chmod(0)
    assert sweep(str(tmp_path)) == 1
    assert not left.exists()
    assert (outside / "precious").exists(), "no link is followed"


def test_several_processes_may_sweep_and_start_at_once(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom cache.run_dir import RunDirectory, sweep\n"
        "for _ in range(60):\n    run = RunDirectory(sys.argv[1]); open(run.path + '/file', 'w').close(); sweep(sys.argv[1])\n"
        "    open(run.path + '/file').close(); run.remove()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    with contextlib.suppress(FileNotFoundError):
        assert os.listdir(tmp_path / "runs") == []
