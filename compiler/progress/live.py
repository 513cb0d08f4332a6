"""LiveReporter: the view for terminals; one thread of its own draws, whoever reports only notes."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from compiler.progress.board import FRAME_SECONDS, Board
from compiler.progress.events import Ended
from compiler.progress.rows import ASCII, UNICODE
from compiler.progress.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from compiler.progress.events import Event
    from compiler.progress.tty import Screen

PATIENCE_SECONDS = 0.15
"""A build that is over before that has nothing to watch, and importing rich would take as long as the build."""


class LiveReporter:
    """clock: seconds that only grow. The drawing thread starts with the first event and ends with Ended or `close`."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = Sink(stream)
        self._clock = clock
        self._marks = UNICODE if self._sink.unicode else ASCII
        self._colour = not os.environ.get("NO_COLOR")
        self._board = Board(clock(), self._marks)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def report(self, event: Event) -> None:
        with self._lock:
            self._board.apply(event, self._clock())
            if self._thread is None:
                self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
                self._thread.start()
        if isinstance(event, Ended):
            self.close()

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._board.stop()
        # There are some only of a build that was too short to be drawn.
        self._sink.write("".join(f"{line}\n" for line in self._finished(self._sink.size()[0])))

    def _finished(self, width: int) -> list[str]:
        with self._lock:
            rows = self._board.take()
        return [row.render(width, self._colour, self._marks.cut) for row in rows]

    # in the drawing thread

    def _draw(self) -> None:
        if self._over.wait(PATIENCE_SECONDS):
            return
        from compiler.progress.tty import Screen

        screen = Screen(self._sink)
        try:
            self._picture(screen)
            while not self._over.wait(FRAME_SECONDS):
                self._picture(screen)
            with self._lock:
                self._board.stop()
        finally:
            screen.close(self._finished(self._sink.size()[0]))

    def _picture(self, screen: Screen) -> None:
        width, height = self._sink.size()
        above = self._finished(width)
        with self._lock:
            rows = self._board.live(self._clock(), height)
        screen.show(above, [row.render(width, self._colour, self._marks.cut) for row in rows], width, height)
