"""Kept: what a build's own store learns of a result that a worker made: a promise, or the layer that it had before."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from cache import encoding
from cache.recipe import Recipe
from cache.result import Layer
from cache.store import Batch
from worker.operation import key_form

if TYPE_CHECKING:
    from cache.digest import Digest
    from cache.promises import Promise
    from cache.result import Result
    from compiler.remote_cache import RemoteCache
    from worker.action import Action


def keep_log(remote: RemoteCache, log: Digest, data: bytes) -> None:
    """Have a command's whole output in the store."""
    remote.store.submit(Batch(blobs={log: data}))


def keep_promise(remote: RemoteCache, key: str, promise: Promise) -> bool:
    """Note what the server has, so that bytes come where something needs them; whether that may be used."""
    remote.promises.note(Recipe(key), promise)
    if key not in remote.promises.results((key,)):
        return False
    # Now, not only at the build's end: whoever waits for this action on the same store looks for it.
    layer = promise.result.layer
    assert layer is not None
    rows = (
        ("promised", f"content:{key}", promise.encode(time.time())),
        ("promised", f"layer:{layer.diff_id}", key.encode()),
    )
    remote.store.submit(Batch(records=rows))  # type: ignore[arg-type]  # a table's name is a literal
    return True


def keep_earlier(remote: RemoteCache, action: Action, promise: Promise, log: bytes | None) -> Result | None:
    """The result with the layer that the same operation made on this store before, if it said the same: image digests
    then stay put, as if the action had run here. log: what it printed, None if that is not known. None if there is no
    such layer here."""
    result, store = promise.result, remote.store
    assert result.layer is not None
    record = store.get("outputs", encoding.key("output", [key_form(action.operation), result.layer.content]))
    if record is None:
        return None
    with contextlib.suppress(*encoding.UNREADABLE):
        *fields, created = encoding.parse(record)
        earlier, made = Layer.from_json(fields), float(created)
        blobs = tuple(blob for blob in (earlier.tar, earlier.listing) if blob is not None)
        if len(blobs) < 2 or earlier.content != result.layer.content or not all(map(store.has_blob, blobs)):
            return None
        if result.log is not None and log is None:
            log = remote.read_log(promise)
            if log is None:
                return None
        found = result._replace(layer=earlier, created=made)
        rows = (
            ("layers", earlier.diff_id, encoding.canonical(earlier.to_json())),
            ("results", action.key, encoding.canonical(found.to_json())),
        )
        logs = {result.log: log} if result.log is not None and log is not None else {}
        store.submit(Batch(blobs=logs, records=rows, needs=blobs))  # type: ignore[arg-type]  # a table's name is a literal
        return found
    return None
