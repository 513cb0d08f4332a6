"""Remembered: which notes of what steps were made of stay after the results went, so that `why` can still compare.

A note (a record of `preimages` under a recipe key) and the lists of files that it names stay as long as a build, a
place in a file or another note that stays names it. Of those whose result is gone the oldest go beyond a bound.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from cache import encoding
from cache.naming import hashes_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cache.lmdb_view import View

MAX_NOTES = 20_000
"""Notes that outlive their results: those of some hundred Dockerfiles as they were built in the last weeks."""
MAX_BYTES = 16 << 20
"""Of them and of the lists of files that they name; a list has some 40 bytes a file."""
SOURCE = "source:"
"""How keys of `preimages` begin that stand for lists of files."""


def forgotten_notes(view: View, builds: Mapping[str, float]) -> list[str]:
    """Recipe keys whose notes may go. builds: recipe key → when a build that is remembered last had it."""
    orphans, names = _without_result(view)
    if not orphans:
        return []
    named = {key: when for key, when in builds.items() if key in orphans}
    for key, when in _named_by_places(view):
        if key in orphans:
            named[key] = max(when, named.get(key, 0.0))
    newest = sorted(named, key=lambda key: (-named[key], key))
    # What a note that has its result names comes first: it is what that one is compared with, step below step.
    kept = _within_bounds(view, _reached([*sorted(names), *newest], view, orphans))
    return [key for key in orphans if key not in kept]


def drop_file_lists(view: View, hashes: set[str]) -> int:
    """Drop those of the lists of files that nothing names any more; how many."""
    wanted = {name for name in hashes if view.get("preimages", f"{SOURCE}{name}") is not None}
    if not wanted:
        return 0
    for key, value in view.scan("preimages"):
        if not wanted:
            break
        if not key.startswith(SOURCE):
            wanted -= hashes_in(value)
    return sum(view.delete("preimages", f"{SOURCE}{name}") for name in wanted)


def _without_result(view: View) -> tuple[dict[str, int], set[str]]:
    """(notes whose recipe is not known any more → their bytes, those of them that the other notes name)."""
    orphans = {
        key: len(value)
        for key, value in view.scan("preimages")
        if not key.startswith(SOURCE) and view.get("recipes", key) is None
    }
    named: set[str] = set()
    if orphans:
        for key, value in view.scan("preimages"):
            if key not in orphans and not key.startswith(SOURCE):
                named |= hashes_in(value) & orphans.keys()
    return orphans, named


def _named_by_places(view: View) -> Iterable[tuple[str, float]]:
    """Recipe keys that a place in a file or an operation names, with when the file was last built; 0 if not known."""
    for key, record in view.scan("places"):
        try:
            if key.startswith("at:"):
                value: Any = encoding.parse(zlib.decompress(record))
                when = int(str(value["build"]).partition("-")[0], 16) / 1000
                yield from ((str(place[0]), when) for place in value["nodes"].values())
            elif key.startswith("op:"):
                yield str(encoding.parse(record)["recipe"]), 0.0
        except (*encoding.UNREADABLE, zlib.error):
            continue


def _reached(first: list[str], view: View, orphans: Mapping[str, int]) -> Iterable[tuple[str, set[str]]]:
    """The notes and all that they name, each once, with everything that it names."""
    seen: set[str] = set()
    for start in first:
        pending = [start]
        while pending:
            key = pending.pop()
            if key in seen:
                continue
            seen.add(key)
            names = hashes_in(view.get("preimages", key) or b"")
            yield key, names
            pending += sorted(names & orphans.keys() - seen)


def _within_bounds(view: View, notes: Iterable[tuple[str, set[str]]]) -> set[str]:
    """The first of the notes, up to the bounds; a list of files counts once."""
    kept: set[str] = set()
    lists: set[str] = set()
    total = 0
    for key, names in notes:
        total += len(view.get("preimages", key) or b"")
        for name in names - lists:
            found = view.get("preimages", f"{SOURCE}{name}")
            if found is not None:
                lists.add(name)
                total += len(found)
        if len(kept) >= MAX_NOTES or total > MAX_BYTES:
            break
        kept.add(key)
    return kept
