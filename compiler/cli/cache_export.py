"""`buildgraph cache export`: a copy of the store as of one moment, also while it is served or built with."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cache.backup import Copied, export_directory, export_tar
from cache.errors import EnvironmentProblem, UsageError
from cache.size_text import bytes_text
from compiler.cli.streams import require_output
from compiler.progress.text import printable

if TYPE_CHECKING:
    import argparse

    from cache.lmdb_store import LmdbStore

TOUCHES_FILES_OF_STEPS = False


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "A directory is a store itself; on the same filesystem its files are links. Cache mounts, tokens and the key "
        "that secrets are compared by are not copied."
    )
    help_ = "a new directory, a new tar, or a tar on standard output"
    parser.add_argument("target", metavar="DIR|FILE.tar|-", help=help_)


def run(store: LmdbStore, parsed: argparse.Namespace) -> int:
    """Exit code 0, or an exception."""
    target: str = parsed.target
    if target == "-":
        require_output()
        copied = export_tar(store, sys.stdout.buffer, _tell)
        sys.stdout.buffer.flush()
    elif target.endswith(".tar"):
        copied = _tar_file(store, target)
    else:
        copied = export_directory(store, os.path.abspath(target), _tell)
    sys.stderr.write(f"exported {_text(copied)} to {printable(target)}\n")
    return 0


def _tar_file(store: LmdbStore, target: str) -> Copied:
    if os.path.lexists(target):
        raise UsageError(f"{target} is there already", hint="choose another name")
    new = f"{target}.partial"
    try:
        with open(new, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            copied = export_tar(store, file, _tell)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, target)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {target}: {error.strerror or error}") from None
    except BaseException:
        os.unlink(new)
        raise
    return copied


def run_without_store(directory: str, _parsed: argparse.Namespace) -> str:
    """Raises UsageError."""
    raise UsageError(f"there is no store at {directory}")


def _text(copied: Copied) -> str:
    linked = f", {copied.linked} of them linked" if copied.linked else ""
    return f"{copied.records} records and {copied.blobs} large blobs{linked}, {bytes_text(copied.bytes)},"


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\r\x1b[K" if done >= total else ""
        sys.stderr.write(f"\r\x1b[K{bytes_text(done)} of {bytes_text(total)}{end}")
        sys.stderr.flush()
