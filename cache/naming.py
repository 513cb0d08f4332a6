"""Naming: which blobs a record names, told without taking the record apart."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cache.store import Table

NAMING: Final[tuple[Table, ...]] = ("results", "layers", "outputs", "names", "fetches", "builds")
"""Tables whose values name blobs."""
_BLOB = re.compile(rb'"([0-9a-f]{64}/[0-9]{1,19})"')
_LAYER = re.compile(rb'"(sha256:[0-9a-f]{64})"')


def blobs_in(table: Table, value: bytes) -> list[str]:
    """The digests, as `str(Digest)`, of all blobs that a record of this table names."""
    if table not in NAMING:
        return []
    if table == "builds":
        # Few of them have a log of their own; they are compressed.
        try:
            value = zlib.decompress(value)
        except zlib.error:
            return []
    return [found.decode() for found in _BLOB.findall(value)]


def layer_in(value: bytes) -> str:
    """The diff_id of the layer that a record of `results`, `layers`, `outputs` or `fetches` says, "" for none."""
    found = _LAYER.search(value)
    return "" if found is None else found[1].decode()
