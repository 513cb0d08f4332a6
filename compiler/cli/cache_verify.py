"""`buildgraph cache verify`: read everything in the store again, and say what is wrong."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem, exit_code
from cache.size_text import bytes_text
from cache.verify import Verified, verify
from compiler.cli.streams import say
from compiler.progress.text import printable

if TYPE_CHECKING:
    import argparse

    from cache.lmdb_store import LmdbStore

TOUCHES_FILES_OF_STEPS = False
_EVERY = 0.2
"""Seconds between two looks of the progress line."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit code 0 if all is well or was repaired, 4 if something is wrong."
    parser.add_argument("--repair", action="store_true", help="drop what is wrong, so that a build makes it anew")


def run(store: LmdbStore, parsed: argparse.Namespace) -> int:
    """Exit code 0, or that of an EnvironmentProblem if something is wrong."""
    progress = _Progress() if sys.stderr.isatty() else None
    verified = verify(store, repair=parsed.repair, tell=progress.tell if progress else lambda _done, _all: None)
    if progress:
        progress.end()
    say(_text(verified, repaired=parsed.repair))
    if verified.problems and not parsed.repair:
        return exit_code(EnvironmentProblem(""))
    return 0


def run_without_store(_directory: str, _parsed: argparse.Namespace) -> str:
    """There is no JSON of it."""
    return ""


def _text(verified: Verified, *, repaired: bool) -> str:
    lines = [f"{'dropped' if repaired else 'wrong'}: {printable(problem.text)}" for problem in verified.problems]
    if verified.swept:
        lines.append(f"removed the scratch space of {verified.swept} builds that were killed")
    if verified.orphans:
        lines.append(f"{bytes_text(verified.orphans)} belonged to no record, as after a kill, and were given up")
    if verified.reclaimed.bytes:
        lines.append(f"{bytes_text(verified.reclaimed.bytes)} came back")
    read = f"read {verified.blobs} blobs, {bytes_text(verified.bytes)}, and {verified.records} records"
    count = len(verified.problems)
    if not count:
        lines.append(f"{read}: all is well")
    elif repaired:
        lines.append(f"{read}: dropped what was wrong, {count} in all; a build makes it anew")
    else:
        lines.append(f"{read}: {count} wrong; `buildgraph cache verify --repair` drops them, a build makes them anew")
    return "".join(f"{line}\n" for line in lines)


class _Progress:
    def __init__(self) -> None:
        self._next = time.monotonic() + 2 * _EVERY
        self._shown = False

    def tell(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            self._shown = True
            sys.stderr.write(f"\r\x1b[Kreading {bytes_text(done)} of {bytes_text(total)}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
