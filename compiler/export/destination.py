"""Destinations: files and directories that appear whole or not at all, and standard output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem, UsageError
from cache.run_dir import remove_tree
from compiler.export.output import STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TEMPORARY = re.compile(r"\.buildgraph-[0-9a-f]{16}")


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
            mode = os.stat(target).st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a directory; this output needs a file")
        if not stat.S_ISREG(mode):
            fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
            try:
                yield fd
            finally:
                os.close(fd)
            return
        directory = os.path.dirname(target)
        os.makedirs(directory, exist_ok=True)
        sweep(directory)
        temporary, fd = _locked_file(directory)
        try:
            yield fd
            os.rename(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)


@contextlib.contextmanager
def new_directory(path: str) -> Iterator[str]:
    """An empty directory beside `path`, which must not exist; renamed to it at the end."""
    target = os.path.realpath(path)
    with writing(path):
        directory = os.path.dirname(target)
        os.makedirs(directory, exist_ok=True)
        sweep(directory)
        with staging(directory, 0o777) as temporary:
            yield temporary
            os.rename(temporary, target)


@contextlib.contextmanager
def staging(directory: str, mode: int = 0o700) -> Iterator[str]:
    """A temporary directory in another one. It is removed at the end, unless it was renamed."""
    while True:
        temporary = _temporary(directory)
        os.mkdir(temporary, mode)
        try:
            fd = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another export's sweep took it for dead, between the two calls
        if _lock(fd, temporary):
            break
        os.close(fd)
    try:
        yield temporary
    finally:
        if os.path.lexists(temporary):
            remove_tree(temporary)
        os.close(fd)


def sweep(directory: str) -> None:
    """Remove what exports that were killed left in a directory: temporary names of this user that nobody locks."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if _TEMPORARY.fullmatch(name):
                _remove_if_dead(os.path.join(directory, name))


def _remove_if_dead(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                remove_tree(path)
            else:
                os.unlink(path)
    except OSError:
        return  # in use, or gone
    finally:
        os.close(fd)


def _locked_file(directory: str) -> tuple[str, int]:
    while True:
        temporary = _temporary(directory)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if _lock(fd, temporary):
            return temporary, fd
        os.close(fd)


def _lock(fd: int, path: str) -> bool:
    """Lock it until this process ends; False if another export's sweep was faster and has removed it."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    return os.path.lexists(path)


def _temporary(directory: str) -> str:
    return os.path.join(directory, f".buildgraph-{os.urandom(8).hex()}")


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
