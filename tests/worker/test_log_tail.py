"""Following a log that another build writes: whole lines, none twice, none lost, and no file but a build's."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import Digest
from cache.store import Batch
from worker.log_tail import POLL_BYTES, LogTail
from worker.output import MEMORY_LIMIT, Output
from worker.shown_lines import LINE_LIMIT, SHOWN_LINES

if TYPE_CHECKING:
    from pathlib import Path

    from cache.lmdb_store import LmdbStore


def keep(store: LmdbStore, data: bytes) -> Digest:
    digest = Digest.of(data)
    store.commit(Batch(blobs={digest: data}))
    return digest


def grow(path: str, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def test_whole_lines_as_they_come_and_the_rest_at_the_end(store: LmdbStore) -> None:
    lines: list[str] = []
    path = store.scratch("log")
    with LogTail(store, lines.append) as tail:
        tail.poll("")
        tail.poll(path)
        assert lines == [], "the file is not there yet"
        grow(path, b"one\ntw")
        tail.poll(path)
        assert lines == ["one"]
        grow(path, b"o\r\nthree\nfo")
        tail.poll(path)
        assert lines == ["one", "two", "three"]
        tail.poll("")
        tail.finish(keep(store, b"one\ntwo\r\nthree\nfour\nfive"))
    assert lines == ["one", "two", "three", "four", "five"]


def test_without_a_poll_all_comes_at_the_end(store: LmdbStore) -> None:
    lines: list[str] = []
    LogTail(store, lines.append).finish(keep(store, b"one\ntwo\n"))
    LogTail(store, lines.append).finish(None)
    assert lines == ["one", "two"]


def test_a_log_that_goes_another_way_is_shown_whole(store: LmdbStore) -> None:
    """Its maker was killed, and a third build made the result."""
    lines: list[str] = []
    path = store.scratch("log")
    grow(path, b"one\nof the dead\n")
    with LogTail(store, lines.append) as tail:
        tail.poll(path)
        tail.finish(keep(store, b"one\nof the living\n"))
    assert lines == ["one", "of the dead", "one", "of the living"]


def test_another_file_is_another_execution(store: LmdbStore) -> None:
    lines: list[str] = []
    first, second = store.scratch("log"), store.scratch("log")
    grow(first, b"a\nhalf")
    grow(second, b"a\nb\n")
    with LogTail(store, lines.append) as tail:
        tail.poll(first)
        tail.poll(second)
        tail.finish(keep(store, b"a\nb\nc\n"))
    assert lines == ["a", "a", "b", "c"]


def test_a_file_that_vanishes(store: LmdbStore) -> None:
    lines: list[str] = []
    path = store.scratch("log")
    grow(path, b"one\n")
    with LogTail(store, lines.append) as tail:
        tail.poll(path)
        os.unlink(path)
        tail.poll(path)
        tail.finish(Digest("0" * 64, 10))
    assert lines == ["one"]


def test_only_files_of_builds_on_this_store_are_read(store: LmdbStore, tmp_path: Path) -> None:
    lines: list[str] = []
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    runs = store.scratch("x").rpartition("/")[0]
    os.symlink(secret, f"{runs}/link")
    os.mkdir(f"{runs}/directory")
    os.mkfifo(f"{runs}/fifo")
    wrong = [str(secret), f"{runs}/link", f"{runs}/../../../secret", f"{runs}/directory", f"{runs}/fifo", "nul\0", "relative"]
    for path in wrong:
        with LogTail(store, lines.append) as tail:
            tail.poll(path)
            tail.finish(None)
    assert lines == []


def test_a_poll_reads_no_more_than_its_share(store: LmdbStore) -> None:
    lines: list[str] = []
    path = store.scratch("log")
    grow(path, b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * (3 * POLL_BYTES // 100))
    with LogTail(store, lines.append) as tail:
        tail.poll(path)
        assert 0 < len(lines) <= POLL_BYTES // 100
        tail.poll(path)
        tail.poll(path)
        tail.poll(path)
    assert len(lines) == 3 * POLL_BYTES // 100 + 1


def test_a_line_without_end_and_too_many_lines_are_bounded(store: LmdbStore) -> None:
    lines: list[str] = []
    LogTail(store, lines.append).finish(keep(store, b"z" * (5 * LINE_LIMIT) + b"\n"))
    assert "".join(lines) == "z" * (5 * LINE_LIMIT)
    assert max(map(len, lines)) <= LINE_LIMIT
    lines.clear()
    LogTail(store, lines.append).finish(keep(store, b"\n" * (SHOWN_LINES + 100)))
    assert len(lines) == SHOWN_LINES + 1
    assert "only kept in the log" in lines[-1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([b"a", b"\n", b"line\n", b"." * 70_000, b"\xff"]), max_size=12), st.integers(0, 11), st.integers(0, 12))
def test_whenever_it_looks_all_is_shown_once(store: LmdbStore, pieces: list[bytes], first: int, last: int) -> None:
    """Looking while piece after piece is written, from the first-th to the last-th."""
    lines: list[str] = []
    path = store.scratch("log")
    with LogTail(store, lines.append) as tail:
        for number, piece in enumerate(pieces):
            grow(path, piece)
            if first <= number < last:
                tail.poll(path)
        tail.finish(keep(store, b"".join(pieces)))
    whole = b"".join(pieces).decode("utf-8", "replace")
    assert "".join(lines) == whole.replace("\n", "")
    assert len(lines) >= whole.count("\n")


def test_what_an_output_writes_can_be_followed_from_its_first_line(store: LmdbStore) -> None:
    """Small, large and in between the file has what the log has."""
    output = Output(store, lambda _: None, [b"a secret of mine"])
    reading, writing = os.pipe()
    thread = threading.Thread(target=output.read_from, args=(reading,))
    thread.start()
    sent = b""
    for size in (1, 10, 5000, MEMORY_LIMIT, 10):
        data = b"x" * size + b" a secret of mine\n"
        view = memoryview(data)
        while view:
            view = view[os.write(writing, view) :]
        sent += data.replace(b"a secret of mine", b"[secret]")
        wait_until(output.live_path, sent)
    os.close(writing)
    thread.join(10)
    os.close(reading)
    digest, batch = output.keep()
    assert digest == Digest.of(sent)
    store.commit(batch)
    assert store.read_blob(digest) == sent


def wait_until(path: str, content: bytes) -> None:
    import time

    deadline = time.monotonic() + 60
    while not os.path.exists(path) or os.path.getsize(path) < len(content):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    with open(path, "rb") as file:
        assert file.read() == content


def test_an_output_that_nobody_can_follow_is_kept_all_the_same(store: LmdbStore) -> None:
    for size in (10, MEMORY_LIMIT + 10):
        output = Output(store, lambda _: None)
        os.mkdir(output.live_path)
        fd = os.memfd_create("output")
        os.write(fd, b"first\n")
        os.lseek(fd, 0, os.SEEK_SET)
        output.read_from(fd)
        os.rmdir(output.live_path)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"x" * size + b"\n", 0)
        os.lseek(fd, 0, os.SEEK_SET)
        output.read_from(fd)
        os.close(fd)
        digest, batch = output.keep()
        assert digest is not None
        store.commit(batch)
        assert store.read_blob(digest) == b"first\n" + b"x" * size + b"\n"


def test_a_step_that_prints_nothing_makes_no_file(store: LmdbStore) -> None:
    output = Output(store, lambda _: None)
    fd = os.memfd_create("output")
    output.read_from(fd)
    os.close(fd)
    assert not os.path.exists(output.live_path)
