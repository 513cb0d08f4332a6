"""Logs that only the team's cache has: what a step printed on another machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cache.promises import Promise
from compiler.progress.text import printable_lines
from compiler.remote_cache import RemoteCache

if TYPE_CHECKING:
    from cache.digest import Digest
    from cache.lmdb_store import LmdbStore
    from cache.remote_settings import RemoteSettings


def read_remote_log(store: LmdbStore, settings: RemoteSettings, log: Digest) -> bytes | None:
    """A log that a server promised; None if none did, or it is not to be had, which is told."""
    found = (Promise.parse(record) for _, record in store.scan("promised", "content:"))
    promise = next((each for each in found if each is not None and each.result.log == log), None)
    if promise is None or promise.origin.server != settings.origin:
        return None
    remote = RemoteCache(store, settings, _warn)
    try:
        return remote.read_log(promise) if remote.contact() else None
    finally:
        remote.close()


def _warn(text: str) -> None:
    sys.stderr.write(f"{printable_lines(f'WARNING: {text}')}\n")
