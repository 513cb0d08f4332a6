"""Where a step runs, as the views of a build show it."""

from __future__ import annotations

import io

from compiler.progress.board import Board
from compiler.progress.events import Announced, Finished, NodeInfo, Placed, Started, Waiting
from compiler.progress.plain import PlainReporter
from compiler.progress.rows import ASCII

NODE = NodeInfo("1.1", 6, "[2/2] RUN make", "1", "run")
EVENTS = (Announced((NODE,)), Started("1.1"), Waiting("1.1", "no slot is free"), Placed("1.1", "w1\x1b[2J"))


def test_plain_output_says_which_worker_has_it() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream, turn_seconds=0.0)
    for event in (*EVENTS, Finished("1.1", "done", 1.0, None, "on w1")):
        reporter.report(event)
    reporter.close()
    lines = stream.getvalue().splitlines()
    assert lines[:4] == ["#6 [2/2] RUN make", "#6 waiting: no slot is free", "#6 on w1", "#6 DONE 1.0s (on w1)"]


def test_the_live_view_says_it_while_it_runs() -> None:
    board = Board(0.0, ASCII)
    for event in EVENTS:
        board.apply(event, 0.0)
    row = board.live(1.0, 20)[1].render(80, False, "~")
    assert "on w1" in row
    assert "\x1b" not in row
    board.apply(Finished("1.1", "done", 1.0, None, "on w1"), 1.0)
    board.apply(Placed("1.1", "w2"), 1.0)
    assert len(board.live(1.0, 20)) == 1, "a late word does not bring it back"
