"""Footprint: which blobs the results of buildgraph's own steps name, found by the steps' content keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from blake3 import blake3

from cache.server.action_cache import StoredAction, action_key
from cache.server.wire_digest import size_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.lmdb_store import LmdbStore

_KEY = re.compile(r"[0-9a-f]{64}")


def blobs_of(store: LmdbStore, namespace: str, contents: Iterable[str]) -> dict[str, dict[str, int]]:
    """Content key → blobs and their sizes, of the results that the namespace has."""
    keys = {}
    for content in contents:
        if _KEY.fullmatch(content):
            text = f"buildgraph.v1 content {content}".encode()
            keys[action_key(namespace, "blake3", f"{blake3(text).hexdigest()}/{len(text)}").encode()] = content
    with store.view() as view:
        rows = view.get_multi("actions", list(keys))
    actions = {keys[raw]: StoredAction.parse(row) for raw, row in rows.items()}
    return {
        content: {blob: size_of(blob) for blob in action.blobs}
        for content, action in actions.items()
        if action is not None
    }
