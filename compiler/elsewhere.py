"""Elsewhere: of results that are not here, where they were made or are, for whoever says why a step has to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.graph import Node
    from compiler.lookup import Lookup
    from compiler.records import StepRecords

ONLY_THERE = "was made elsewhere, and has never been here"


def elsewhere(lookup: Lookup, records: StepRecords, node: Node, content: str = "") -> str:
    """The end of a sentence that begins with «its result»; "" if this store had it, or nothing is known.

    content: the key by which it would be found; "" for the one that its place in the file had.
    """
    place = records.place(node.id)
    if place is not None and not content and place.recipe == records.before(node):
        content = place.content
    found = lookup.elsewhere(content) if content else ""
    if not found and place is not None and not place.content and place.recipe == records.before(node):
        return ONLY_THERE  # only a step that no build here needed has a place without its content, see `BuildLog`
    return found
