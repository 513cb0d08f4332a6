"""Lookup: results that the store has, by recipe key in one batch and by content key one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding
from cache.result import Layer, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cache.store import Store


class Lookup:
    """Gives only results that can be used: one that cannot be read, or of which anything is gone, counts as none.

    contents: node id → content key of what `by_recipe` found.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.contents: dict[str, str] = {}

    def by_recipe(self, recipes: Mapping[str, str]) -> dict[str, Result]:
        """Node id → recipe key in; node id → Result out, for those that are known."""
        contents = self._store.get_many("recipes", set(recipes.values()))
        # A damaged record becomes a key that no result has.
        wanted = {node: contents[key].decode("ascii", "replace") for node, key in recipes.items() if contents.get(key)}
        records = self._store.get_many("results", set(wanted.values()))
        found = {}
        for node, content in wanted.items():
            result = self._usable(records.get(content))
            if result is not None:
                found[node] = result
                self.contents[node] = content
        return found

    def by_content(self, key: str) -> Result | None:
        """The result of an action."""
        return self._usable(self._store.get("results", key))

    def _usable(self, record: bytes | None) -> Result | None:
        result = Result.parse(record)
        if result is None or (result.log is not None and not self._store.has_blob(result.log)):
            return None
        return result if result.layer is None or _complete(self._store, result.layer) else None


def all_present(store: Store, diff_ids: Iterable[str]) -> bool:
    """Whether the store has everything of these layers."""
    wanted = set(diff_ids)
    records = store.get_many("layers", wanted)
    if len(records) < len(wanted):
        return False
    try:
        return all(_complete(store, Layer.from_json(encoding.parse(record))) for record in records.values())
    except encoding.UNREADABLE:
        return False


def _complete(store: Store, layer: Layer) -> bool:
    return all(blob is not None and store.has_blob(blob) for blob in (layer.tar, layer.listing))
