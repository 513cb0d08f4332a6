"""What a step prints: shown by lines, kept whole, without secrets (I4)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from worker.output import LINE_LIMIT, MEMORY_LIMIT, REDACTED, TAIL_LINES, Output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def feed(output: Output, pieces: Sequence[bytes]) -> None:
    """Have the pieces arrive one after the other."""
    reader, writer = os.pipe()

    def write() -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(writer, view) :]
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    output.read_from(reader)
    thread.join()
    os.close(reader)


def collect(store: LmdbStore, pieces: Sequence[bytes], secrets: Sequence[bytes] = ()) -> tuple[list[str], bytes, Output]:
    """The lines that were shown, the log that is kept, and the output."""
    lines: list[str] = []
    output = Output(store, lines.append, secrets)
    feed(output, pieces)
    digest, batch = output.keep()
    if digest is None:
        return lines, b"", output
    store.commit(batch)
    kept = store.read_blob(digest)
    assert Digest.of(kept) == digest
    return lines, kept, output


def test_lines_are_shown_and_everything_is_kept(store: LmdbStore) -> None:
    lines, kept, _ = collect(store, [b"one\ntw", b"o\r\n", b"", b"\nno end"])
    assert lines == ["one", "two", "", "no end"]
    assert kept == b"one\ntwo\r\n\nno end"


def test_nothing_printed_is_no_log(store: LmdbStore) -> None:
    output = Output(store, print)
    feed(output, [])
    digest, batch = output.keep()
    assert digest is None
    assert not batch.blobs


def test_bytes_that_are_not_text_are_kept_as_they_are(store: LmdbStore) -> None:
    lines, kept, _ = collect(store, [b"\xff\xfe\x00x\n"])
    assert kept == b"\xff\xfe\x00x\n"
    assert lines == ["\ufffd\ufffd\x00x"]


def test_the_last_lines_are_at_hand(store: LmdbStore) -> None:
    _, _, output = collect(store, [b"".join(b"%d\n" % number for number in range(100))])
    assert list(output.tail) == [str(number) for number in range(100 - TAIL_LINES, 100)]


def test_a_big_log_goes_to_a_file_and_is_whole(store: LmdbStore) -> None:
    line = b"x" * 999 + b"\n"
    count = 3 * MEMORY_LIMIT // 1000
    lines, kept, _ = collect(store, [line * count])
    assert kept == line * count
    assert len(lines) == count


def test_a_line_without_an_end_comes_in_pieces(store: LmdbStore) -> None:
    data = bytes(range(32, 127)) * 5000
    lines, kept, _ = collect(store, [data])
    assert kept == data
    assert "".join(lines) == data.decode()
    assert len(lines) > 3
    assert max(map(len, lines)) <= LINE_LIMIT * 3


def test_secrets_are_not_shown_not_kept_and_not_in_the_tail(store: LmdbStore) -> None:
    lines, kept, output = collect(store, [b"a hunt", b"er2 b\nhunter2hunter2\n"], [b"hunter2\n"])
    assert lines == ["a [secret] b", "[secret][secret]"]
    assert kept == b"a [secret] b\n[secret][secret]\n"
    assert list(output.tail) == lines


def test_each_line_of_a_secret_is_one_and_short_ones_are_not(store: LmdbStore) -> None:
    lines, _, _ = collect(store, [b"first line, second line, abc\n"], [b"first line\nsecond line\nabc\n"])
    assert lines == ["[secret], [secret], abc"]


def test_the_longer_of_two_secrets_is_taken(store: LmdbStore) -> None:
    lines, _, _ = collect(store, [b"token-and-more token\n"], [b"token", b"token-and-more"])
    assert lines == ["[secret] [secret]"]


@pytest.mark.parametrize("length", [5, 100, 5000])
@pytest.mark.parametrize("before", [-3, 0, 1, 50, 99, 4999])
def test_a_secret_across_the_pieces_of_a_long_line(store: LmdbStore, length: int, before: int) -> None:
    """Wherever a line that never ends is cut, the secret is not."""
    secret = os.urandom(length).hex().encode()[:length]
    for limit in (LINE_LIMIT, 2 * LINE_LIMIT, 2 * LINE_LIMIT + length):
        data = b"." * (limit - before) + secret + b"," * (3 * LINE_LIMIT) + secret
        lines, kept, _ = collect(store, [data], [secret])
        assert kept == data.replace(secret, REDACTED)
        assert "".join(lines).encode() == kept


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([b"secret-one", b"another secret", b"x", b"\n", b"." * 30_000, b"," * 65_536, b"-" * 65_530]), max_size=14),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_in_any_text_cut_anywhere(store: LmdbStore, words: list[bytes], places: list[float]) -> None:
    data = b"".join(words)
    cuts = sorted(int(place * len(data)) for place in places)
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    lines, kept, _ = collect(store, pieces, [b"secret-one", b"another secret"])
    expected = data.replace(b"secret-one", REDACTED).replace(b"another secret", REDACTED)
    assert kept == expected
    assert "".join(lines).encode() == expected.replace(b"\n", b"")


def test_a_log_that_cannot_be_kept_is_the_readers_error(store: LmdbStore, tmp_path: Path) -> None:
    broken = LmdbStore(str(tmp_path))
    broken.scratch("x")
    output = Output(broken, lambda _: None)
    for path in (tmp_path / "runs").iterdir():
        (path / "lock").unlink()
        path.rmdir()
    with pytest.raises(OSError, match="No such file"):
        feed_quietly(output)
    broken.close()


def feed_quietly(output: Output) -> None:
    fd = os.memfd_create("log")
    os.write(fd, b"x\n" * MEMORY_LIMIT)
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        output.read_from(fd)
    finally:
        os.close(fd)
