"""Earlier: the layer that an operation made before, if it said the same: image digests then stay put."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.result import Layer
from worker.operation import key_form

if TYPE_CHECKING:
    from cache.digest import Digest
    from cache.store import Store
    from worker.operation import Operation


class Earlier(NamedTuple):
    """layer: with its tar and listing, which are `blobs`, in the store. created: when it was first made."""

    layer: Layer
    blobs: tuple[Digest, ...]
    created: float


def output_key(operation: Operation, content: str, within: str = "") -> str:
    """Under which the table `outputs` keeps it. content: of the layer. within: see `Order`."""
    return encoding.key("output", [key_form(operation), content, *([within] if within else ())])


def result_key(action: str, within: str = "") -> str:
    """Under which the table `results` keeps what the action of this key made."""
    return encoding.key("result", [action, within]) if within else action


def earlier_layer(store: Store, key: str) -> Earlier | None:
    """None also for one that cannot be read, or of which something is gone. key: see `output_key`."""
    record = store.get("outputs", key)
    if record is not None:
        with contextlib.suppress(*encoding.UNREADABLE):
            *fields, created = encoding.parse(record)
            layer = Layer.from_json(fields)
            blobs = tuple(blob for blob in (layer.tar, layer.listing) if blob is not None)
            if len(blobs) == 2 and all(map(store.has_blob, blobs)):
                return Earlier(layer, blobs, float(created))
    return None
