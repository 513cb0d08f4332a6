"""The database file of the store: whether it still has all its pages, before anything maps them into memory.

LMDB reads through a memory map. Of a file that was cut short, by a full disk or a copy that broke off, a page that is
not there is no error but SIGBUS, which kills the process without a word.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from cache.errors import StoreProblem

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "data.mdb"
_MAGIC: Final = 0xBEEFC0DE
_META: Final = struct.Struct("=16x I I 8x 8x I 44x 48x Q Q")
"""lmdb's MDB_meta behind its page header: magic, version, page size, last page, transaction; 64 bit, own byte order."""


class _Meta(NamedTuple):
    """What one of the two meta pages says. The one of the later transaction counts."""

    transaction: int
    last_page: int
    page_size: int


def check(directory: str, read_all: Callable[[], None]) -> None:
    """Raises StoreProblem if the database of a store has lost a part, OSError if it cannot be read.

    A file that is shorter than its meta page says may still be whole: pages at its end that no table uses were never
    written. So then, and only then, `read_all` is called, in a child that may die of it.
    """
    if not (_is_long_enough(directory) or _survives(read_all)):
        raise StoreProblem(
            f"the store's {NAME} is damaged: a part of it is missing",
            hint=f"remove {directory}; what is in it can be built again",
        )


def _is_long_enough(directory: str) -> bool:
    path = os.path.join(directory, NAME)
    try:
        with open(path, "rb") as file:
            first = _meta(file.read(_META.size))
            if first is None:
                return True  # empty, or nothing that LMDB would touch: it says so itself
            file.seek(first.page_size)
            second = _meta(file.read(_META.size))
            # The size comes last: whoever writes makes the file longer first, and then the meta page say so.
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return True
    latest = max(first, second or first)
    return size >= (latest.last_page + 1) * latest.page_size


def _meta(page: bytes) -> _Meta | None:
    if len(page) < _META.size:
        return None
    magic, _, page_size, last_page, transaction = _META.unpack(page)
    return _Meta(transaction, last_page, page_size) if magic == _MAGIC else None


def _survives(action: Callable[[], None]) -> bool:
    """Whether a child can do this without dying or failing."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0
