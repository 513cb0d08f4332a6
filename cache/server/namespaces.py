"""Namespaces: trust domains, which clients call instance names."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from cache.server.refusal import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache.lmdb_store import LmdbStore
    from cache.server.access import Caller

RESERVED = frozenset(
    ("blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs")
)  # fmt: skip
"""Parts that no name may have, since they stand in resource names (the API's own list)."""
MAX_LINKED = 32
"""Other namespaces that are searched for a blob that is missing in one, at most."""
_NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_MAX = 100
_GOOD: dict[str, None] = {"": None}
"""Names that were found right; only so many that nobody can fill the memory with them."""
_MAX_GOOD = 1000


def checked_namespace(name: str) -> str:
    """The name, if it is one: "" or 1 to 100 of `[A-Za-z0-9._-]`, with single slashes between. Raises Refused."""
    if name in _GOOD:
        return name
    if len(name) > _MAX:
        raise invalid(f"an instance name has at most {_MAX} characters, this one has {len(name)}")
    if not _NAME.fullmatch(name):
        raise invalid("an instance name has 1 to 100 letters, digits, '.', '_' and '-', with single '/' between")
    parts = name.split("/")
    wrong = next((part for part in parts if part in (".", "..") or part in RESERVED), None)
    if wrong is not None:
        raise invalid(f"an instance name cannot have the part {wrong!r}")
    if len(_GOOD) < _MAX_GOOD:
        _GOOD[name] = None
    return name


class Namespaces:
    """Those that have blobs, the last used first. May be used by several threads at once."""

    def __init__(self, store: LmdbStore) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, None] = dict.fromkeys(_scan(store))

    def add(self, name: str) -> None:
        if name not in self._known:
            with self._lock:
                self._known = {name: None, **self._known}

    def used(self, name: str) -> None:
        """A blob was found there: look there first the next time."""
        if next(iter(self._known), None) != name:
            with self._lock:
                self._known = {name: None, **self._known}

    def known(self) -> tuple[str, ...]:
        return tuple(self._known)

    def linkable(self, namespace: str, caller: Caller) -> list[str]:
        """Other ones that the caller may read."""
        others = (name for name in self._known if name != namespace)
        return _first(others, MAX_LINKED, caller)


def _first(names: Iterable[str], count: int, caller: Caller) -> list[str]:
    found: list[str] = []
    for name in names:
        if len(found) == count:
            break
        if caller.may("read", name):
            found.append(name)
    return found


def _scan(store: LmdbStore) -> Iterator[str]:
    """By hops from one to the next, not by reading every record."""
    with store.view() as view:
        key = view.key_from("members", "")
        while key is not None:
            name = key.partition("\0")[0]
            yield name
            key = view.key_from("members", f"{name}\1")
