"""Lookup: results that the store has or a cache server promised, by recipe key in one batch, by content key singly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding
from cache.promises import Promise
from cache.recipe import Recipe
from cache.result import Layer, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cache.promises import Promises
    from cache.recipe import Ground
    from cache.store import Store
    from compiler.remote_cache import RemoteCache


class Lookup:
    """Gives only results that can be used: one that cannot be read, or of which anything is gone, counts as none.

    contents: node id → content key of what `by_recipe` found. grounds: node id → what its inputs were then. promised:
    content key → what was found, but not here.
    """

    def __init__(self, store: Store, remote: RemoteCache | None = None) -> None:
        """remote: a cache server that is believed where this store knows nothing."""
        self._store = store
        self._remote = remote
        self.contents: dict[str, str] = {}
        self.grounds: dict[str, tuple[Ground, ...]] = {}
        self.promised: dict[str, Promise] = {}

    def by_recipe(self, recipes: Mapping[str, str]) -> dict[str, Result]:
        """Node id → recipe key in; node id → Result out, for those that are known. Asks nobody."""
        found = self._by_recipe(recipes, self._store.get_many("recipes", set(recipes.values())))
        if self._remote is not None and len(found) < len(recipes):
            left = {node: key for node, key in recipes.items() if node not in found}
            found.update(self._promised(left, self._remote.promises))
        return found

    def _by_recipe(self, recipes: Mapping[str, str], contents: Mapping[str, bytes]) -> dict[str, Result]:
        parsed = {node: Recipe.parse(contents.get(key, b"")) for node, key in recipes.items()}
        wanted = {node: recipe for node, recipe in parsed.items() if recipe is not None}
        records = self._store.get_many("results", {recipe.content for recipe in wanted.values()})
        found = {}
        for node, recipe in wanted.items():
            result = self._usable(records.get(recipe.content))
            if result is not None:
                found[node] = result
                self._note(node, recipe)
        return found

    def _note(self, node: str, recipe: Recipe) -> None:
        self.contents[node], self.grounds[node] = recipe

    def _promised(self, recipes: Mapping[str, str], promises: Promises) -> dict[str, Result]:
        records = self._store.get_many("recipes", set(recipes.values()))
        records.update(promises.recipes(set(recipes.values())))
        # What a server says is made of the same as something here is that.
        found = self._by_recipe(recipes, records)
        left = {
            node: recipe
            for node, key in recipes.items()
            if node not in found and (recipe := Recipe.parse(records.get(key, b""))) is not None
        }
        known = promises.results({recipe.content for recipe in left.values()})
        for node, recipe in left.items():
            promise = known.get(recipe.content)
            if promise is not None:
                found[node] = promise.result
                self._note(node, recipe)
                self.promised[recipe.content] = promise
        return found

    def by_content(self, key: str, *, ask: bool = True) -> Result | None:
        """The result of an action. ask: whether the cache server is asked about one that nobody knows yet."""
        found = self._usable(self._store.get("results", key))
        if found is not None or self._remote is None:
            return found
        promise = self._remote.find_content(key) if ask else self._remote.promises.results((key,)).get(key)
        if promise is None:
            return None
        self.promised[key] = promise
        return promise.result

    def elsewhere(self, content: str) -> str:
        """Of a result that only a cache server has or had: why it is not used, as the end of «its result …»; "" if no
        server promised it."""
        remote = self._remote
        asked = remote.settings.origin if remote is not None else ""
        lost = remote is not None and remote.promises.was_lost(content)
        promise = None if lost else Promise.parse(self._store.get("promised", f"content:{content}"))
        server = asked if lost else promise.origin.server if promise is not None else ""
        if not server:
            return ""
        if remote is None or server != asked:
            return f"is only at {server}, which is not asked"
        if remote.strict and not lost:
            return f"is at {server}, which is not believed: only trusted workers are"
        if remote.off:
            return f"is only at {server}, which {remote.why_off}"
        return f"is not to be had from {server} any more" if lost else f"is at {server}"

    def _usable(self, record: bytes | None) -> Result | None:
        result = Result.parse(record)
        if result is None or (result.log is not None and not self._store.has_blob(result.log)):
            return None
        return result if result.layer is None or _complete(self._store, result.layer) else None


def all_present(store: Store, diff_ids: Iterable[str], remote: RemoteCache | None = None) -> bool:
    """Whether the store has everything of these layers, or the cache server promised it."""
    wanted = set(diff_ids)
    records = store.get_many("layers", wanted)
    absent = {diff_id for diff_id in wanted if not _is_complete_record(store, records.get(diff_id))}
    return all(remote is not None and remote.promises.layer(diff_id) is not None for diff_id in absent)


def _is_complete_record(store: Store, record: bytes | None) -> bool:
    try:
        return record is not None and _complete(store, Layer.from_json(encoding.parse(record)))
    except encoding.UNREADABLE:
        return False


def _complete(store: Store, layer: Layer) -> bool:
    return all(blob is not None and store.has_blob(blob) for blob in (layer.tar, layer.listing))
