"""Journal: what happened, one line of JSON each: refusals, what was published by whom, problems. Never a token."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import sys
import threading
import time

from cache.errors import EnvironmentProblem

RATES = {"published": 1000.0}
"""Lines a second of one kind of event: whoever publishes stores more than a line. Others have PER_SECOND."""
PER_SECOND = 50.0
BURST_SECONDS = 10.0
"""So much may be saved up; beyond that lines are only counted, so that a flood fills no disk."""
MAX_TEXT = 500
"""Characters of one value."""


class Journal:
    """May be used by several threads at once; never fails: whoever cannot be written is lost, the server goes on."""

    def __init__(self, path: str = "") -> None:
        """path: a file that is appended to; "" for standard error. Raises EnvironmentProblem."""
        self._path = path
        self._lock = threading.Lock()
        self._allowed: dict[str, tuple[float, float]] = {}
        """Kind of event → (lines that it may still have, when that was)."""
        self._suppressed: dict[str, int] = {}
        self._fd = 2
        if path:
            self._fd = self._open()

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write the log {self._path}: {error.strerror}") from None

    def reopen(self) -> None:
        """After a rotation: go on in a new file of that name. If that fails, in the old one."""
        if self._path:
            with contextlib.suppress(EnvironmentProblem), self._lock:
                old, self._fd = self._fd, self._open()
                os.close(old)

    def write(self, event: str, /, **fields: object) -> None:
        """One line, unless there were too many of its kind."""
        with self._lock:
            if not self._admit(event, time.monotonic()):
                self._suppressed[event] = self._suppressed.get(event, 0) + 1
                return
            lost = self._suppressed.pop(event, 0)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line: dict[str, object] = {"time": now, "event": event}
            line |= {name: _value(value) for name, value in fields.items() if value not in ("", None)}
            if lost:
                line["suppressed"] = lost
            # Escaped to ASCII: names come from outside and may hold anything.
            with contextlib.suppress(OSError):
                os.write(self._fd, json.dumps(line).encode() + b"\n")

    def _admit(self, event: str, now: float) -> bool:
        rate = RATES.get(event, PER_SECOND)
        burst = rate * BURST_SECONDS
        left, since = self._allowed.get(event, (burst, now))
        left = min(burst, left + (now - since) * rate)
        self._allowed[event] = (left - 1 if left >= 1 else left), now
        return left >= 1

    def close(self) -> None:
        if self._path:
            with self._lock:
                os.close(self._fd)
                self._fd = 2
                self._path = ""

    def take_logging(self) -> None:
        """From now on whatever Python's loggers have to say goes here, without tracebacks."""
        root = logging.getLogger()
        root.handlers[:] = [_Handler(self)]
        root.setLevel(logging.INFO)
        logging.raiseExceptions = False


class _Handler(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f": {type(error).__name__}: {error}"
        self._journal.write(record.levelname.lower(), source=record.name, text=" ".join(text.split()))


def _value(value: object) -> object:
    if isinstance(value, int | float | bool):
        return value
    text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def fail_loudly(journal: Journal) -> None:
    """A thread that ends by an exception leaves one line, no traceback."""

    def hook(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread else "?"
        journal.write("error", source=name, text=f"{args.exc_type.__name__}: {args.exc_value}")

    threading.excepthook = hook
    sys.unraisablehook = lambda args: journal.write("error", text=f"{args.exc_type.__name__}: {args.exc_value}")
