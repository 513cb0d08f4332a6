"""Standard streams: whatever the caller left of them, results arrive or their loss is an error."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

from cache.errors import EnvironmentProblem


def prepare() -> None:
    """Put something on each closed one of the descriptors 0 to 2, before a file of the store gets its number.

    Input and output get it the wrong way round, so that reading and writing fail instead of passing for done. Messages
    that nobody can read are lost.
    """
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            # All below are open, so this is the lowest free number.
            os.set_inheritable(os.open(os.devnull, flags), True)
    # Python has None for those that were closed when it started.
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names from a Dockerfile or a directory may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")


def require_output() -> None:
    """Raises EnvironmentProblem if what is written to standard output would be lost; asked before a long build."""
    try:
        os.write(1, b"")
    except OSError as error:
        raise _unwritable(error) from None


def say(text: str) -> None:
    """Write a result to standard output, now. Raises EnvironmentProblem, and BrokenPipeError if the reader is gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable(error) from None


def _unwritable(error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(f"cannot write to standard output: {_reason(error)}")


def _reason(error: OSError) -> str:
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)


def read_input(limit: int) -> bytes:
    """At most so many bytes of standard input. Raises EnvironmentProblem."""
    try:
        return sys.stdin.buffer.read(limit)
    except OSError as error:
        raise EnvironmentProblem(f"cannot read standard input: {_reason(error)}") from None


def finish() -> None:
    """Let go of what could not be written, or the interpreter would try once more and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
