"""Progress on terminals: the live view, and that no output of a step acts on the terminal."""

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.progress.board import Board
from compiler.progress.events import (
    Announced,
    Ended,
    Event,
    Finished,
    NodeInfo,
    Printed,
    Started,
    Task,
    Transfer,
    Waiting,
    Warned,
)
from compiler.progress.open import open_reporter
from compiler.progress.plain import PlainReporter
from compiler.progress.rows import ASCII, UNICODE, Part, Row, cells
from compiler.progress.text import printable, size_text

NODES = Announced(
    (
        NodeInfo("context", 1, "context", "", "context"),
        NodeInfo("build.1", 2, "[build 2/3] RUN make", "build", "run"),
        NodeInfo("build.2", 3, "[build 3/3] COPY . /src", "build", "copy"),
        NodeInfo("test.1", 4, "[test 2/2] RUN pytest", "test", "run"),
    )
)


# harmless output


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain text\twith a tab", "plain text\twith a tab"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x1bPq#0;2\x1b\\image", "image"),
        ("\x9b31mred \x9d0;title\x9c", "red "),
        ("\x1b(Bcharset\x1b7\x1b=\x1bc", "charset"),
        ("10 %\r50 %\r100 %\r", "100 %"),
        ("\x1b[2K\r 50 %\x1b[K\r\x1b[K", " 50 %"),
        ("bell\x07 back\x08\x00 \x7f\x85", "bell back "),
        ("right\u202eleft", "rightleft"),
        ("half \udc80 é 日本", "half \ufffd é 日本"),
    ],
)
def test_what_acts_on_the_terminal_is_taken_out(line: str, shown: str) -> None:
    assert printable(line) == shown


TROUBLE = st.text(st.sampled_from("\x1b[]()P\\;?0m9K\x07\x08\r\t\x9b\x9c\x9d\x90 ab\ud800\u202e日"), max_size=60)


@given(TROUBLE)
@settings(deadline=None)
def test_no_control_character_passes(line: str) -> None:
    nodes = Announced((NodeInfo("a", 1, line, "", "run"),))
    stream = io.StringIO()
    view, board = PlainReporter(stream, turn_seconds=0.0), Board(0.0, UNICODE)
    failed = Finished("a", "failed", 1.0, None, line)
    events: list[Event] = [Printed("a", line), Waiting("a", line), Task(line, "started", 0.0), Warned(line)]
    for event in (nodes, *events):
        view.report(event)
        board.apply(event, 0.0)
    rows = board.live(1.0, 24)
    view.report(failed)
    board.apply(failed, 2.0)
    rows += board.take()
    view.close()
    text = stream.getvalue() + "".join(row.render(80, False, "…") for row in rows)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202e]", text)


@pytest.mark.alone
def test_hostile_output_costs_little_time() -> None:
    began = time.monotonic()
    for text in ("\x1b]", "\x9d", "\x1b[", "\x1b", "\x90a", "\x1b]0;", "\r", "\x1b "):
        printable(text * (65536 // len(text)))
    assert time.monotonic() - began < 2


def test_sizes_have_few_digits() -> None:
    assert [size_text(size) for size in (0, 999, 1000, 45_200_000, 999_960, 3 * 10**9)] == [
        "0B",
        "999B",
        "1.0kB",
        "45.2MB",
        "1.0MB",
        "3.0GB",
    ]


# rows


@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=60), max_size=4),
    st.text("note ", max_size=40),
    st.text("0.5 MBs", max_size=30),
    st.integers(1, 120),
)
@settings(deadline=None)
def test_a_row_is_never_wider_than_the_terminal(left: list[str], note: str, right: str, width: int) -> None:
    row = Row(tuple(Part(text, "green") for text in left), note, right)
    assert cells(row.render(width, False, "…")) <= width
    assert re.sub(r"\x1b\[\d+m", "", row.render(width, True, "…")) == row.render(width, False, "…")


def test_a_long_title_gives_way_to_note_and_time() -> None:
    row = Row((Part("+ "), Part("[build 2/4] RUN " + "x" * 200)), "made by ann@ci", "  1.0s")
    assert row.render(60, False, "~") == "+ [build 2/4] RUN xxxxxxxxxxxxxxxx~ (made by ann@ci)    1.0s"


@pytest.mark.parametrize("height", [1, 3, 5, 8, 24])
def test_the_picture_stays_below_the_height_of_the_terminal(height: int) -> None:
    board = Board(0.0, ASCII)
    for number in range(7):
        for line in range(6):
            board.apply(Printed(f"step {number}", f"line {line}"), 0.0)
    rows = [row.render(80, False, "~") for row in board.live(2.0, height)]
    assert len(rows) < max(height, 3)
    if height == 5:
        assert [row.split("  ")[0] for row in rows] == ["[+] Building 2.0s (0/0)", "| step 0", "| step 1", ""]
        assert rows[-1] == "  and 5 more"
    if height == 24:
        assert rows[1:4] == [rows[1], "    line 4", "    line 5"]


# terminals


@contextmanager
def terminal(columns: int = 80, lines: int = 24) -> Iterator[tuple[io.TextIOWrapper, list[bytes]]]:
    """A pseudo-terminal's end to write to, and the chunks that came out of it, complete after the block."""
    ours, theirs = pty.openpty()
    resize(theirs, columns, lines)
    chunks: list[bytes] = []

    def collect() -> None:
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:
            # The other end was closed.
            return

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        with open(theirs, "w", encoding="utf-8") as stream:
            yield stream, chunks
    finally:
        reader.join()
        os.close(ours)


def resize(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def wait_for(text: str, chunks: list[bytes]) -> None:
    deadline = time.monotonic() + 60
    while text not in b"".join(chunks).decode(errors="replace"):
        assert time.monotonic() < deadline, f"{text!r} was not drawn"
        time.sleep(0.01)


def test_a_short_build_writes_its_lines_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("compiler.progress.live.PATIENCE_SECONDS", 60.0)
    with terminal() as (stream, chunks):
        view = open_reporter("auto", stream)
        view.report(NODES)
        view.report(Finished("build.1", "cached", 0.0, 5, "made 2 h ago by ann@ci"))
        view.report(Finished("build.2", "done", 0.02, 5, ""))
        view.report(Ended(True, 0.05, "", 1, 1, ""))
        view.close()
    assert b"".join(chunks).decode().split("\r\n") == [
        "\x1b[36m✓ CACHED \x1b[0m[build 2/3] RUN make\x1b[2m (made 2 h ago by ann@ci)\x1b[0m",
        f"\x1b[32m✓ \x1b[0m[build 3/3] COPY . /src{'5B    0.0s':>55}",
        "\x1b[1mbuilt in 0.1s: 1 ran, 1 cached\x1b[0m",
        "",
    ]


def test_a_terminal_shows_what_runs_and_keeps_what_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with terminal() as (stream, chunks):
        view = open_reporter("tty", stream)
        view.report(NODES)
        view.report(Started("build.1"))
        view.report(Transfer("build.1", 1_000_000, 45_200_000))
        for number in range(9):
            view.report(Printed("build.1", f"\x1b]0;evil\x07line {number} " + "x" * 100))
        wait_for("line 8", chunks)
        resize(stream.fileno(), 50, 10)
        view.report(Finished("context", "cached", 0.0, None, ""))
        wait_for("(1/4, 1 cached)", chunks)
        view.report(Finished("build.1", "failed", 0.0, None, "exit code 2"))
        view.report(Started("test.1"))
        wait_for("[test 2/2]", chunks)
        view.close()
        # Late news of threads that are being stopped.
        view.report(Printed("test.1", "late"))
        view.close()
    text = b"".join(chunks).decode()
    assert re.search(r"\[\+\] Building \d+\.\d", text)
    assert "1.0MB / 45.2MB" in text
    assert "    line 5 " + "x" * 68 + "…" in text
    assert "evil" not in text
    assert "late" not in text
    assert "[3" not in text.replace("[34", "")
    assert text.index("\x1b[?25l") < text.rindex("\x1b[?25h")
    assert "✗ [build 2/3] RUN make (exit code 2)" in text
    # After the failure its last lines stay whole, and what ran is told to be cancelled.
    end = text[text.index("✗") :]
    assert "line 8 " + "x" * 100 in end
    assert end.count("■ CANCELED [test 2/2] RUN pytest") == 1


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal() as (stream, _):
        assert isinstance(open_reporter("auto", stream), PlainReporter)
