"""Fetched layers: what a repository or an archive became, kept so that it is not fetched or unpacked again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding
from cache.result import Layer

if TYPE_CHECKING:
    from cache.store import Batch, Store, Table


def find_fetched(store: Store, key: str) -> Layer | None:
    """The layer that was kept under this key, if its bytes are there."""
    record = store.get("fetches", key)
    if record is not None:
        layer = Layer.from_json(encoding.parse(record))
        if layer.tar is not None and store.has_blob(layer.tar):
            return layer
    return None


def keep_fetched(store: Store, key: str, layer: Layer, batch: Batch, *more: tuple[Table, str, bytes]) -> None:
    """batch: makes the layer durable. more: records that go with it."""
    row: tuple[Table, str, bytes] = ("fetches", key, encoding.canonical(layer.to_json()))
    store.submit(batch._replace(records=(*batch.records, row, *more)))
