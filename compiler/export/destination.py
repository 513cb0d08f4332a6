"""Destinations: files and directories that appear whole or not at all, and standard output."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem, UsageError
from cache.temporary import locked_directory, locked_file, sweep
from compiler.export.output import STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def open_output(dest: str, stdout: int) -> Iterator[int]:
    """A descriptor for one archive: of a file that gets its name when the block ends without an error, or `stdout`.

    UsageError for a terminal and for a directory; EnvironmentProblem if the place cannot be written.
    """
    if dest != STDOUT:
        with new_file(dest) as fd:
            yield fd
        return
    if os.isatty(stdout):
        raise UsageError("refusing to write an archive to a terminal", hint="name a file with dest=FILE, or use a pipe")
    with writing("standard output"):
        yield stdout


@contextlib.contextmanager
def new_file(path: str) -> Iterator[int]:
    """A file beside `path`, renamed to it at the end; what stands at `path` stays until then.

    A symlink at `path` is followed, as a shell's redirection would: the user named it. A device or pipe is written
    directly.
    """
    target = os.path.realpath(path)
    with writing(path):
        try:
            mode = os.stat(path).st_mode  # not of target: /dev/stdout leads to a pipe, whose name leads nowhere
        except FileNotFoundError:
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a directory; this output needs a file")
        if not stat.S_ISREG(mode):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                yield fd
            finally:
                os.close(fd)
            return
        directory = os.path.dirname(target)
        os.makedirs(directory, exist_ok=True)
        sweep(directory)
        with locked_file(directory) as (temporary, fd):
            yield fd
            os.rename(temporary, target)


@contextlib.contextmanager
def new_directory(path: str) -> Iterator[str]:
    """An empty directory beside `path`, which must not exist; renamed to it at the end."""
    target = os.path.realpath(path)
    with writing(path):
        directory = os.path.dirname(target)
        os.makedirs(directory, exist_ok=True)
        sweep(directory)
        with locked_directory(directory, 0o777) as temporary:
            yield temporary
            os.rename(temporary, target)


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn an OSError into an EnvironmentProblem that says what could not be written."""
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to {what}: {error.strerror}") from error


def writer(fd: int) -> Callable[[bytes], None]:
    """A function that writes all of some bytes. Raises OSError."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write
