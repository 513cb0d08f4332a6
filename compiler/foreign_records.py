"""ForeignRecords: what others' keys were made of, from records that anybody in the team may have written."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from cache import encoding
from compiler.explain import explain
from compiler.preimage import parse_preimage
from worker import file_list

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from compiler.explain import World
    from compiler.preimage import Preimage
    from compiler.reasons import Explained
    from worker.file_list import Listed

    Find = Callable[[str, Sequence[str]], Mapping[str, bytes]]
    """Kind and keys in, those of the records that exist out."""

MAX_PREIMAGE = 4 << 20
MAX_LIST = 32 << 20
"""Bytes of an unpacked record: a list has 200,000 files at most."""
MAX_READ = 64 << 20
"""Unpacked bytes that one explanation may take in all."""
MOST_AT_ONCE = 1000
"""Records that are asked for in one go before they are needed."""


class ForeignRecords:
    """A `World` of such records. Nothing in it is believed: what cannot be read, or is too large, is not there."""

    def __init__(self, find: Find, shown: Callable[[Preimage], Preimage] = lambda preimage: preimage) -> None:
        """shown: leaves out what is not to be shown."""
        self._find = find
        self._shown = shown
        self._read = 0
        self._preimages: dict[str, Preimage | None] = {}
        self._files: dict[str, list[Listed] | None] = {}

    def prefetch(self, recipes: Collection[str]) -> None:
        """Ask for many at once: a server may be far away."""
        wanted = [key for key in dict.fromkeys(recipes) if key and key not in self._preimages][:MOST_AT_ONCE]
        if not wanted:
            return
        found = self._find("preimages", wanted)
        for key in wanted:
            data = self._unpacked(found.get(key), MAX_PREIMAGE)
            self._preimages[key] = None if data is None else self._parsed(key, data)

    def _parsed(self, key: str, data: bytes) -> Preimage | None:
        try:
            found = parse_preimage(key, data)
            return None if found is None else self._shown(found)
        except encoding.UNREADABLE:
            return None

    def earlier(self, recipe: str) -> Preimage | None:
        self.prefetch((recipe,))
        found = self._preimages.get(recipe)
        if found is not None:
            # What it builds on is asked for next.
            self.prefetch([note.recipe for note in found.inputs])
        return found

    def files(self, source: str) -> list[Listed] | None:
        if source not in self._files:
            data = self._unpacked(self._find("sources", (source,)).get(source), MAX_LIST)
            try:
                self._files[source] = None if data is None else file_list.parse(data)
            except ValueError:
                self._files[source] = None
        return self._files[source]

    def _unpacked(self, record: bytes | None, limit: int) -> bytes | None:
        data = None if record is None else unpacked(record, min(limit, MAX_READ - self._read))
        self._read += len(data or b"")
        return data


class Both:
    """One `World` in front of another."""

    def __init__(self, first: World, second: World) -> None:
        self._first = first
        self._second = second

    def earlier(self, recipe: str) -> Preimage | None:
        return self._first.earlier(recipe) or self._second.earlier(recipe)

    def files(self, source: str) -> list[Listed] | None:
        found = self._first.files(source)
        return self._second.files(source) if found is None else found


def explain_foreign(
    now: Preimage, before: Preimage, world: World, found: dict[tuple[str, str], Explained] | None = None
) -> Explained | None:
    """As `explain`; None if the records make no sense."""
    try:
        return explain(now, before, world, found, foreign=True)
    except (*encoding.UNREADABLE, RecursionError):
        return None


def unpacked(record: bytes, limit: int) -> bytes | None:
    """What zlib packed; None for anything else, and for more than so many bytes."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(record, max(1, limit))
    except zlib.error:
        return None
    return data if unpacker.eof else None
