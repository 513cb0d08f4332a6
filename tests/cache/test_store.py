"""The contract of the store, kept by LmdbStore on a real disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import Digest
from cache.errors import StoreProblem
from cache.lmdb_store import INLINE_LIMIT, LmdbStore
from cache.store import TABLES, Batch
from tests.cache.stored import blob, scratch_file

if TYPE_CHECKING:
    from collections.abc import Iterator


SIZES = [0, 1, INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, 3 << 20]


@pytest.fixture(params=[False, True], ids=["caller-writes", "writer-thread"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    if request.param:
        opened.start_writer()
    yield opened
    opened.close()


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
