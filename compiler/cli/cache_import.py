"""`buildgraph cache import`: a new store out of an export, everything in it verified."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cache.backup import Copied, import_directory, import_tar
from cache.errors import EnvironmentProblem, StoreProblem, UsageError
from cache.lmdb_store import LmdbStore
from cache.run_dir import remove_tree
from cache.size_text import bytes_text
from cache.verify import verify
from compiler.progress.text import printable

if TYPE_CHECKING:
    import argparse

TOUCHES_FILES_OF_STEPS = False


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The store must be new: --store says where. Everything is read again and compared with its digest."
    parser.add_argument("source", metavar="DIR|FILE.tar|-", help="what `cache export` wrote")


def run(store: LmdbStore, _parsed: argparse.Namespace) -> int:
    """Raises UsageError: nothing is imported into a store that is there."""
    raise UsageError(f"there is a store at {store.directory} already", hint="give a new directory with --store")


def run_without_store(directory: str, parsed: argparse.Namespace) -> str:
    """What was imported, in words."""
    new = not os.path.exists(directory)
    try:
        copied = _copy(parsed.source, directory)
    except BaseException:
        if new and os.path.exists(directory):
            remove_tree(directory)
        raise
    store = LmdbStore(directory)
    try:
        verified = verify(store)
    finally:
        store.close()
    if verified.problems:
        first = printable(verified.problems[0].text)
        hint = f"`buildgraph cache verify --repair --store {directory}` drops what is wrong"
        raise StoreProblem(f"{len(verified.problems)} things are wrong in what was imported: {first}", hint=hint)
    counted = f"{verified.records} records and {copied.blobs} large blobs, {bytes_text(copied.bytes)}"
    return f"imported {counted}, into {printable(directory)}: all is well"


def _copy(source: str, directory: str) -> Copied:
    if source == "-":
        return import_tar(sys.stdin.buffer, directory)
    if os.path.isdir(source):
        return import_directory(os.path.abspath(source), directory)
    try:
        with open(source, "rb") as file:
            return import_tar(file, directory)
    except FileNotFoundError:
        raise UsageError(f"there is no {source}") from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {source}: {error.strerror or error}") from None
