"""Kept: what a build's own store learns of a result that a worker made: a promise, or the layer that it had before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache import encoding
from cache.recipe import Recipe
from cache.store import Batch
from worker.earlier import earlier_layer, output_key

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
    earlier = earlier_layer(store, output_key(action.operation, result.layer.content))
    if earlier is None or earlier.layer.content != result.layer.content:
        return None
    if result.log is not None and log is None:
        log = remote.read_log(promise)
        if log is None:
            return None
    layer = earlier.layer
    found = result._replace(layer=layer, created=earlier.created)
    rows = (
        ("layers", layer.diff_id, encoding.canonical(layer.to_json())),
        ("results", action.key, encoding.canonical(found.to_json())),
    )
    logs = {result.log: log} if result.log is not None and log is not None else {}
    store.submit(Batch(blobs=logs, records=rows, needs=earlier.blobs))  # type: ignore[arg-type]  # a table's name is a literal
    return found
