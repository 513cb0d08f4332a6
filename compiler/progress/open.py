"""Open: the view for a `--progress` mode."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.errors import UsageError

if TYPE_CHECKING:
    from typing import TextIO

    from compiler.progress.events import Reporter

MODES = ("auto", "tty", "plain", "rawjson", "quiet")


def open_reporter(mode: str, stream: TextIO) -> Reporter:
    """The view that writes to this stream, which is stderr: stdout is for results.

    `auto` is `tty` on a terminal that can move its cursor, else `plain`. Raises UsageError for an unknown mode and for
    `tty` without a terminal. Each view is imported here, so that a build pays for one only.
    """
    if mode not in MODES:
        raise UsageError(f"there is no progress mode {mode!r}", hint=f"one of {', '.join(MODES)}")
    if mode == "auto":
        mode = "tty" if _is_terminal(stream) and os.environ.get("TERM", "") not in ("", "dumb", "unknown") else "plain"
    elif mode == "tty" and not _is_terminal(stream):
        raise UsageError("--progress=tty needs a terminal, and stderr is not one", hint="use --progress=plain")
    match mode:
        case "tty":
            from compiler.progress.live import LiveReporter

            return LiveReporter(stream)
        case "plain":
            from compiler.progress.plain import PlainReporter

            return PlainReporter(stream)
        case "rawjson":
            from compiler.progress.rawjson import RawJsonReporter

            return RawJsonReporter(stream)
    from compiler.progress.quiet import QuietReporter

    return QuietReporter()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        # It is closed.
        return False
