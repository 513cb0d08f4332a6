"""Text files that a context brings along: only regular ones, and only its own."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

STREAMS = ("/dev/", "/proc/")
"""Where shells put what they hand over as a file, as in `-f <(generate)`; reading that may wait."""


def read_text_file(path: str, limit: int, accept: Callable[[os.stat_result], bool] = lambda _: True) -> bytes | None:
    """The bytes of a regular file; None if there is none, or if `accept` refuses it.

    Never waits for a pipe that stands there. Raises UsageError for what is no regular file or larger than limit,
    EnvironmentProblem if it cannot be read.
    """
    waiting = 0 if path.startswith(STREAMS) else os.O_NONBLOCK
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | waiting)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if waiting and not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is not a regular file")
            if not accept(status):
                return None
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
        raise UsageError(f"{path} is larger than {size}")
    return data


def refuse_outside(path: str, directory: str, hint: str = "") -> None:
    """UsageError for a symlink in a context that leads out of it.

    Messages show lines of such files, and who wrote the context may not have been allowed to read them.
    """
    real, top = os.path.realpath(path), os.path.realpath(directory)
    if os.path.commonpath([real, top]) != top:
        raise UsageError(f"{path} is a symlink that leads out of the context", hint=hint)
