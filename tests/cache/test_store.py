"""The contract of the store, kept by LmdbStore on a real disk, also when it is killed or the disk is full."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import Digest
from cache.errors import StoreProblem
from cache.lmdb_store import INLINE_LIMIT, LmdbStore
from cache.run_dir import RunDirectory, sweep
from cache.store import TABLES, Batch, NewFile

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
SIZES = [0, 1, INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, 3 << 20]


@pytest.fixture(params=[False, True], ids=["caller-writes", "writer-thread"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    if request.param:
        opened.start_writer()
    yield opened
    opened.close()


def blob(data: bytes) -> dict[Digest, bytes]:
    return {Digest.of(data): data}


def scratch_file(store: LmdbStore, data: bytes) -> NewFile:
    path = store.scratch("new")
    Path(path).write_bytes(data)
    return NewFile(Digest.of(data), path)


# blobs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file"])
def test_a_blob_comes_back_in_every_way(store: LmdbStore, size: int, as_file: bool) -> None:
    data = os.urandom(size)
    digest = Digest.of(data)
    assert not store.has_blob(digest)
    store.commit(Batch(files=(scratch_file(store, data),)) if as_file else Batch(blobs=blob(data)))
    assert store.has_blob(digest)
    assert store.read_blob(digest) == data
    assert Path(store.blob_path(digest)).read_bytes() == data


@pytest.mark.parametrize("size", [10, INLINE_LIMIT + 1])
def test_a_blob_that_is_not_there_is_said_to_be_missing(store: LmdbStore, size: int) -> None:
    missing = Digest.of(b"x" * size)
    for ask in (store.read_blob, store.blob_path):
        with pytest.raises(StoreProblem, match="has no blob"):
            ask(missing)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_submitted_is_seen_before_it_is_written(tmp_path: Path, size: int) -> None:
    store = LmdbStore(str(tmp_path))  # without a writer nothing is written until `close`
    data = os.urandom(size)
    future = store.submit(Batch(blobs=blob(data), records=(("results", "k", b"v"),)))
    assert not future.done()
    assert store.has_blob(Digest.of(data))
    assert store.read_blob(Digest.of(data)) == data
    assert Path(store.blob_path(Digest.of(data))).read_bytes() == data
    assert store.get("results", "k") == b"v"
    assert store.scan("results") == [("k", b"v")]
    store.close()
    assert future.result(0) is None
    other = LmdbStore(str(tmp_path))
    assert other.get("results", "k") == b"v"
    assert other.read_blob(Digest.of(data)) == data
    other.close()


def test_a_path_stays_valid_while_its_file_becomes_a_blob(store: LmdbStore) -> None:
    data = os.urandom(INLINE_LIMIT * 2)
    new = scratch_file(store, data)
    store.submit(Batch(files=(new,)))
    path = store.blob_path(new.digest)
    with open(path, "rb") as opened:
        store.commit(Batch())
        assert opened.read() == data
    assert Path(path).read_bytes() == data


def test_the_same_blob_twice_is_no_matter(store: LmdbStore) -> None:
    for size in (5, INLINE_LIMIT + 5):
        data = b"a" * size
        store.commit(Batch(blobs=blob(data)))
        store.commit(Batch(files=(scratch_file(store, data),)))
        assert store.read_blob(Digest.of(data)) == data


def test_large_blobs_cannot_be_written_to_by_accident(store: LmdbStore) -> None:
    data = os.urandom(INLINE_LIMIT + 1)
    store.commit(Batch(blobs=blob(data)))
    files = [path for path in Path(store.directory, "blobs").rglob("*") if path.is_file()]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o400]


# records


def test_records_of_each_table_are_its_own(store: LmdbStore) -> None:
    store.commit(Batch(records=tuple((table, "key", table.encode()) for table in TABLES)))
    assert {table: store.get(table, "key") for table in TABLES} == {table: table.encode() for table in TABLES}


def test_the_last_record_counts_pending_or_not(store: LmdbStore) -> None:
    for value in (b"1", b"2", b"3"):
        store.submit(Batch(records=(("names", "n", value),)))
        assert store.get("names", "n") == value
    store.commit(Batch())
    assert store.get("names", "n") == b"3"


def test_a_deleted_record_is_gone_pending_or_not(store: LmdbStore) -> None:
    store.commit(Batch(records=(("names", "a", b"1"), ("names", "b", b"2"))))
    store.submit(Batch(deleted=(("names", "a"),)))
    assert store.get("names", "a") is None
    assert store.scan("names") == [("b", b"2")]
    store.commit(Batch(deleted=(("names", "never there"),)))
    assert store.get_many("names", ["a", "b"]) == {"b": b"2"}
    store.commit(Batch(records=(("names", "a", b"back"),)))
    assert store.get("names", "a") == b"back"


keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30) | st.sampled_from(
    ["k" * 499, "k" * 500, "k" * 501, "k" * 900 + "a", "k" * 900 + "b", "é" * 300, "bytes-\udcff"]
)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "delete", "flush"]), keys, st.binary(max_size=20)), max_size=25
    ),
    keys,
)
def test_the_store_is_a_dictionary(tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str, bytes]], prefix: str) -> None:
    store = LmdbStore(str(tmp_path_factory.mktemp("store")))
    model: dict[str, bytes] = {}
    for action, key, value in actions:
        if action == "put":
            store.submit(Batch(records=(("stats", key, value),)))
            model[key] = value
        elif action == "delete":
            store.submit(Batch(deleted=(("stats", key),)))
            model.pop(key, None)
        else:
            store.commit(Batch())
        assert store.get_many("stats", {key, *model}) == model
    for start in ("", prefix[:1], prefix):
        assert store.scan("stats", start) == sorted((k, v) for k, v in model.items() if k.startswith(start))
    store.close()
    again = LmdbStore(store.directory)
    assert again.get_many("stats", model) == model
    again.close()


def test_a_reader_always_sees_what_was_submitted(store: LmdbStore) -> None:
    """Also in the moment in which it goes from the queue into the database."""
    store.start_writer()
    done = threading.Event()
    missed: list[str] = []
    written = 0

    def look() -> None:
        while not done.is_set():
            before = written
            if len(store.scan("stats")) < before or len(store.get_many("stats", map(str, range(before)))) < before:
                missed.append(f"{before} records")

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        store.submit(Batch(records=(("stats", str(number), b"x"),)))
        written = number + 1
        if number % 10 == 0:
            store.commit(Batch())
    done.set()
    reader.join()
    assert not missed


def test_many_threads_commit_at_once(store: LmdbStore) -> None:
    def work(name: int) -> None:
        for number in range(20):
            data = f"{name}-{number}".encode() * (1 if number % 2 else 8000)
            store.commit(Batch(blobs=blob(data), records=(("results", f"{name}/{number}", str(Digest.of(data)).encode()),)))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    records = store.scan("results")
    assert len(records) == 120
    for _, value in records:
        assert Digest.of(store.read_blob(Digest.parse(value.decode()))) == Digest.parse(value.decode())


def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path))
    store.start_writer()
    futures = [store.submit(Batch(records=(("stats", str(number), b"x"),))) for number in range(2500)]
    store.close()
    assert all(future.done() for future in futures)
    again = LmdbStore(str(tmp_path))
    assert len(again.scan("stats")) == 2500
    again.close()


# several processes

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


def check(store: LmdbStore) -> int:
    """I3: each record's blobs are there and say what their names say."""
    records = store.scan("results")
    for _, value in records:
        for text in value.decode().split():
            digest = Digest.parse(text)
            assert Digest.of(store.read_blob(digest)) == digest
    return len(records)


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
        time.sleep(0.02 + 0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=20)
        durable |= {line for line in out.splitlines() if "-" in line}
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


# what goes wrong


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 filesystem of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a filesystem")
    image, target = tmp_path / "image", tmp_path / "mounted"
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    target.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, target], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"this machine has no loop devices: {mounted.stderr.strip()}")
    yield target
    subprocess.run(["umount", "-l", target], check=True)


@pytest.mark.parametrize("threaded", [False, True], ids=["caller-writes", "writer-thread"])
@pytest.mark.parametrize("size", [20_000, 200_000], ids=["in-the-database", "as-files"])
def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path, size: int, threaded: bool) -> None:
    store = LmdbStore(str(small_disk / "store"))
    if threaded:
        store.start_writer()
    kept: list[Digest] = []

    def fill() -> None:
        while len(kept) < 1000:
            data = os.urandom(size)
            record = ("results", f"{len(kept):05}", str(Digest.of(data)).encode())
            store.commit(Batch(blobs=blob(data), records=(record,)))
            kept.append(Digest.of(data))

    with pytest.raises(StoreProblem, match=r"No space left") as raised:
        fill()
    assert "free some space" in raised.value.hint
    assert kept
    with pytest.raises(StoreProblem):
        store.submit(Batch())
    with pytest.raises(StoreProblem):
        store.close()
    again = LmdbStore(str(small_disk / "store"))
    assert check(again) == len(kept)
    again.close()


def test_a_store_without_a_place_for_scratch_fails_instead_of_hanging(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path))
    (tmp_path / "runs").write_text("a file stands where the directory should be")
    store.start_writer()
    future = store.submit(Batch(blobs=blob(b"x" * (INLINE_LIMIT + 1))))
    with pytest.raises(StoreProblem, match="cannot write to the store"):
        future.result(10)
    with pytest.raises(StoreProblem):
        store.close()


def test_a_store_of_another_version_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    LmdbStore(str(tmp_path)).close()
    environment = lmdb.open(str(tmp_path), max_dbs=20)
    with environment.begin(write=True) as transaction:
        transaction.put(b"format", b"999")
    environment.close()
    with pytest.raises(StoreProblem, match="version") as raised:
        LmdbStore(str(tmp_path))
    assert "--store" in raised.value.hint


@pytest.mark.parametrize("what", ["file", "below-a-file", "garbage"])
def test_a_place_that_cannot_be_a_store_is_named(tmp_path: Path, what: str) -> None:
    place = tmp_path / "place"
    if what == "garbage":
        place.mkdir()
        (place / "data.mdb").write_bytes(b"no database" * 1000)
    else:
        place.write_text("")
    directory = place / "store" if what == "below-a-file" else place
    with pytest.raises(StoreProblem, match=f"cannot open the store {directory}"):
        LmdbStore(str(directory))


def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    """As a user who may not write there; root may write anywhere, so a process without that right asks."""
    LmdbStore(str(tmp_path / "store")).close()
    code = (
        "import os, sys\nfrom cache.lmdb_store import LmdbStore\nfrom cache.errors import StoreProblem\n"
        "if os.geteuid() == 0:\n    os.setresuid(65534, 65534, 65534)\n"
        "try:\n    LmdbStore(sys.argv[1])\nexcept StoreProblem as error:\n    print(error.message, '|', error.hint)\n"
    )
    tmp_path.chmod(0o755)
    for path in tmp_path.parents:
        if path.stat().st_uid == os.getuid() and path.name.startswith("pytest-"):
            path.chmod(0o755)
    (tmp_path / "store").chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store" / "new")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (tmp_path / "store").chmod(0o755)
    assert "Permission denied" in done.stdout, done.stderr
    assert "--store" in done.stdout


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
