"""Housekeeping: drops records that nothing needs any more, so that no table grows for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding
from cache.build_record import BuildRecord
from cache.names import named_images
from cache.recipe import content_in
from cache.remembered import SOURCE, drop_file_lists, forgotten_notes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.lmdb_view import View
    from cache.store import Table

MAX_BUILDS = 2000
MAX_AGE = 90 * 86_400
"""Builds are remembered for so many seconds."""
MAX_PLACES = 200_000
"""Records of places; beyond it those go that say how long an operation took whose key is forgotten."""


def tidy(view: View, now: float, *, stats: bool = False) -> int:
    """In a transaction that writes; how many records went. stats: also what scans of contexts found."""
    known, dropped = _builds(view, now)
    dropped += _delete(view, "recipes", _without_result(view))
    dropped += _delete(view, "preimages", forgotten_notes(view, known))
    dropped += drop_file_lists(view, {key.removeprefix(SOURCE) for key, _ in view.scan("preimages", SOURCE)})
    dropped += _delete(view, "uses", [key for key, _ in view.scan("uses") if not _is_used(view, key)])
    images = {diff_id for image in named_images(view, lambda _: None) for diff_id, _ in image.layers}
    forms = [key for key, _ in view.scan("forms") if key not in images and view.get("layers", key) is None]
    dropped += _delete(view, "forms", forms)
    if view.count("places") > MAX_PLACES:
        dropped += _delete(view, "places", _forgotten_operations(view))
    if stats:
        dropped += _delete(view, "stats", [key for key, _ in view.scan("stats")])
    return dropped


def _builds(view: View, now: float) -> tuple[dict[str, float], int]:
    """Recipe keys in the builds that are kept, with when the newest of these began; and how many went."""
    known: dict[str, float] = {}
    excess = view.count("builds") - MAX_BUILDS
    old = []
    for number, (key, record) in enumerate(view.scan("builds")):
        build = BuildRecord.parse(key, record)
        if number < excess or build is None or build.started < now - MAX_AGE:
            old.append(key)
        else:
            # Oldest first, so that the newest counts.
            known |= dict.fromkeys((key for node in build.nodes for key in (node.recipe, node.before)), build.started)
    return known, _delete(view, "builds", old)


def _without_result(view: View) -> list[str]:
    return [
        key
        for key, value in view.scan("recipes")
        if view.get("results", content_in(value)) is None
    ]


def _is_used(view: View, key: str) -> bool:
    kind, _, name = key.partition(":")
    table: Table = "results" if kind == "result" else "layers"
    return view.get(table, name) is not None


def _forgotten_operations(view: View) -> Iterable[str]:
    found = []
    for key, value in view.scan("places", "op:"):
        try:
            recipe = str(encoding.parse(value)["recipe"])
        except encoding.UNREADABLE:
            recipe = ""
        if not recipe or view.get("preimages", recipe) is None:
            found.append(key)
    return found


def _delete(view: View, table: Table, keys: Iterable[str]) -> int:
    return sum(view.delete(table, key) for key in keys)
