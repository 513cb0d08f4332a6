"""Lookup: results that the store has, by recipe key in one batch and by content key one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding
from cache.result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.store import Store


class Lookup:
    """Gives only results that can be used: one whose layer is gone from the store counts as none."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def by_recipe(self, recipes: Mapping[str, str]) -> dict[str, Result]:
        """Node id → recipe key in; node id → Result out, for those that are known."""
        contents = self._store.get_many("recipes", set(recipes.values()))
        wanted = {node: contents[recipe].decode() for node, recipe in recipes.items() if recipe in contents}
        records = self._store.get_many("results", set(wanted.values()))
        found = {}
        for node, content in wanted.items():
            result = self._usable(records.get(content))
            if result is not None:
                found[node] = result
        return found

    def by_content(self, key: str) -> Result | None:
        """The result of an action."""
        return self._usable(self._store.get("results", key))

    def _usable(self, record: bytes | None) -> Result | None:
        if record is None:
            return None
        result = Result.from_json(encoding.parse(record))
        layer = result.layer
        if layer is not None and (layer.tar is None or not self._store.has_blob(layer.tar)):
            return None
        return result
