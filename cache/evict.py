"""Evict: takes items out of the records of a store, with all that only they need, in one transaction.

Everything is decided again with the write lock held: what a build published meanwhile is not touched. Blobs that no
record names any more are condemned (`cache.condemned`), not removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.condemned import condemn_unnamed
from cache.names import named_images
from cache.naming import CLAMP, blobs_in, layer_in
from cache.recipe import content_in
from cache.usage import layer_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cache.blob_files import BlobFiles
    from cache.lmdb_view import View
    from cache.store import Table

MAX_EVICTIONS = 20_000
"""Notes of what was evicted when; the oldest go."""
_OWNERS: tuple[Table, ...] = ("results", "fetches")


class Order(NamedTuple):
    """Why an item goes. rule: in words. size: bytes that it had."""

    rule: str
    size: int


class Gone(NamedTuple):
    """items: keys of those that went; those that an image came to need meanwhile stay. condemned: bytes of blobs."""

    items: frozenset[str]
    condemned: int


def evict(view: View, files: BlobFiles, orders: Mapping[str, Order], orphans: Iterable[str], now: float) -> Gone:
    """Do it, in a transaction that writes. orders: by `Item.key`, without mounts and prepared layers.

    orphans: blobs, as `str(Digest)`, that no record may name.
    """
    eviction = _Eviction(view, files, orders, now)
    eviction.drop_items()
    eviction.drop_layers()
    candidates = eviction.blobs | set(orphans)
    condemned = condemn_unnamed(view, candidates)
    trim_notes(view)
    return Gone(frozenset(eviction.gone), condemned)


class _Eviction:
    def __init__(self, view: View, files: BlobFiles, orders: Mapping[str, Order], now: float) -> None:
        self._view = view
        self._orders = orders
        self._now = int(now)
        self.gone: set[str] = set()
        self.blobs: set[str] = set()
        self._layers: set[str] = set()
        """diff_ids whose holder went."""
        self._pinned: set[str] = set()
        self._images: set[str] = set()
        for image in named_images(view, files.read):
            if not image.pulled:
                self._pinned |= {diff_id for diff_id, _ in image.layers}
            if f"image:{image.key}" not in orders:
                self._images |= {diff_id for diff_id, _ in image.layers}

    def drop_items(self) -> None:
        """Results with their recipes, fetches, names."""
        contents = set()
        for key, order in self._orders.items():
            kind, _, name = key.partition(":")
            if kind == "result":
                if self._drop("results", key, name, order):
                    contents.add(name)
                    self._view.delete("uses", key)
            elif kind == "fetch":
                self._drop("fetches", key, name, order)
            elif kind == "image":
                self._drop("names", key, name, order)
            elif kind == "output":
                self._drop("outputs", key, name, order)
            elif kind == "layer" and name not in self._pinned:
                self._layers.add(name)
        self._drop_recipes(contents)

    def _drop(self, table: Table, key: str, name: str, order: Order) -> bool:
        record = self._view.get(table, name)
        if record is None:
            return False
        diff_id = layer_in(record) if table != "names" else ""
        if diff_id in self._pinned:
            return False
        self._view.delete(table, name)
        self.blobs.update(blobs_in(table, record))
        self.gone.add(key)
        if diff_id:
            self._layers.add(diff_id)
        if table == "results":
            note_eviction(self._view, name, self._now, order, _content(record))
        return True

    def _drop_recipes(self, contents: set[str]) -> None:
        """The notes of what they were made of stay, as `cache.remembered` says: why a step runs again is asked then."""
        if not contents:
            return
        keys = [key for key, value in self._view.scan("recipes") if content_in(value) in contents]
        for key in keys:
            self._view.delete("recipes", key)

    def drop_layers(self) -> None:
        """Layers whose last holder went, and what was made from them."""
        going = self._layers - self._pinned
        ordered = {name for name in going if layer_key(name) in self._orders}
        if not going:
            return
        for table in _OWNERS:
            for _, value in self._view.scan(table):
                if not going:
                    break
                going.discard(layer_in(value))
        clamped: dict[str, str] = {}
        doomed: list[str] = []
        for key, value in self._view.scan("outputs"):
            made = layer_in(value)
            if key.startswith(CLAMP):
                clamped[key] = made
            elif made in going:
                doomed.append(key)
        for key, made in clamped.items():
            source = key.removeprefix(CLAMP).partition(":")[2]  # behind the epoch
            if source in going and made not in self._pinned:
                doomed.append(key)
                going.add(made)
            elif made in going:
                going.discard(made)
        for key in doomed:
            self._take("outputs", key)
        for name in going:
            if self._take("layers", name) and name in ordered:
                self.gone.add(layer_key(name))
            self._view.delete("uses", layer_key(name))
            if name not in self._images:
                self._view.delete("forms", name)

    def _take(self, table: Table, key: str) -> bool:
        value = self._view.get(table, key)
        if value is None:
            return False
        self.blobs.update(blobs_in(table, value))
        return self._view.delete(table, key)


def note_eviction(view: View, name: str, now: float, order: Order, content: str) -> None:
    """Remember why a result went. name: its content key. content: of its layer, as far as that can be trusted."""
    view.put("evictions", name, encoding.canonical([int(now), order.rule, order.size, content]))


def _content(record: bytes) -> str:
    """The content of a result's layer, "" for none."""
    try:
        layer = encoding.parse(record)["layer"]
        return "" if layer is None else str(layer[1])
    except encoding.UNREADABLE:
        return ""


def trim_notes(view: View) -> None:
    """Forget the oldest notes beyond MAX_EVICTIONS."""
    excess = view.count("evictions") - MAX_EVICTIONS
    if excess > 0:
        notes = sorted((_when(value), key) for key, value in view.scan("evictions"))
        for _, key in notes[:excess]:
            view.delete("evictions", key)


def _when(value: bytes) -> int:
    try:
        return int(encoding.parse(value)[0])
    except encoding.UNREADABLE:
        return 0
