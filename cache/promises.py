"""Promises: results that a cache server has and this store has not, known so that nothing is asked twice.

A record of `results` names only blobs that are here. What a server told about is kept in the table `promised`, which
keeps no blob alive and may be forgotten at any time:

`recipe:KEY` → a `Recipe`. `content:KEY` → a `Promise`. `layer:DIFF_ID` → the content key of a result with that layer.
`base:DIFF_ID` → a `Promise` whose layer is one of an image from outside, of which only the listing is shared.
`listing:DIFF_ID` → the encoded index of a layer.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.recipe import content_in
from cache.result import Result
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cache.lmdb_store import LmdbStore
    from cache.lmdb_view import View
    from cache.recipe import Recipe
    from cache.store import Store

MAX_PROMISES = 50_000
"""Records; the oldest half goes when there are more. A result takes three, of 500 bytes together."""
MAX_LISTING = 1 << 20
"""Bytes of a listing that is kept; a larger one is read again."""


class Origin(NamedTuple):
    """server: `grpc://HOST:PORT`. function: by which its blobs are named there, blake3 or sha256."""

    server: str
    namespace: str
    function: str


class Names(NamedTuple):
    """`HASH/SIZE` of a result's blobs as the server calls them; "" for none."""

    tar: str
    listing: str
    log: str


class Promise(NamedTuple):
    result: Result
    origin: Origin
    names: Names

    @property
    def diff_id(self) -> str:
        """Of its layer, "" for none."""
        return "" if self.result.layer is None else self.result.layer.diff_id

    def encode(self, now: float) -> bytes:
        value = {
            "at": int(now), "from": list(self.origin), "names": list(self.names), "result": self.result.to_json()
        }  # fmt: skip
        return encoding.canonical(value)

    @classmethod
    def parse(cls, record: bytes | None) -> Promise | None:
        """None for one that is missing or damaged."""
        if record is None:
            return None
        try:
            value = encoding.parse(record)
            origin, names = Origin(*map(str, value["from"])), Names(*map(str, value["names"]))
            return cls(Result.from_json(value["result"]), origin, names)
        except encoding.UNREADABLE:
            return None


class Promises:
    """What is known of one server. All methods may be called from several threads.

    active: false once the server is out of reach: then nothing is promised any more.
    """

    def __init__(self, store: Store, server: str, namespaces: Collection[str], *, strict: bool = False) -> None:
        """strict: only what is noted here counts, not what the store remembers of earlier builds."""
        self._store = store
        self._strict = strict
        self._server = server
        self._namespaces = frozenset(namespaces)
        self._lock = threading.Lock()
        self._recipes: dict[str, bytes] = {}
        self._contents: dict[str, Promise] = {}
        self._layers: dict[str, str] = {}
        self._bases: dict[str, Promise] = {}
        self._listings: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}
        self._refused: set[str] = set()
        self._lost: set[str] = set()
        self._lost_results: set[str] = set()
        self.active = True

    # what is known

    def recipes(self, recipes: Collection[str]) -> dict[str, bytes]:
        """Recipe key → encoded `Recipe`."""
        if not self.active:
            return {}
        with self._lock:
            found = {key: self._recipes[key] for key in recipes if key in self._recipes}
        records = self._remembered([f"recipe:{key}" for key in recipes if key not in found])
        for key, value in records.items():
            found[key.removeprefix("recipe:")] = value
        return found

    def results(self, contents: Collection[str]) -> dict[str, Promise]:
        """Content key → what is promised."""
        if not self.active:
            return {}
        with self._lock:
            found = {key: self._contents[key] for key in contents if key in self._contents}
        wanted = [key for key in contents if key not in found]
        records = self._remembered([f"content:{key}" for key in wanted])
        for key in wanted:
            promise = Promise.parse(records.get(f"content:{key}"))
            if promise is not None and self._may_be_used(promise):
                found[key] = promise
                self._keep(key, promise)
        return found

    def layer(self, diff_id: str) -> Promise | None:
        """A result that has this layer."""
        if not self.active:
            return None
        with self._lock:
            key = self._layers.get(diff_id, "")
        if not key:
            name = f"layer:{diff_id}"
            key = self._remembered([name]).get(name, b"").decode("ascii", "replace")
        found = self.results((key,)).get(key) if key else None
        # Another result may have come under the key since.
        there = found is not None and found.result.layer is not None and found.result.layer.diff_id == diff_id
        return found if there else None

    def was_promised(self, diff_id: str) -> bool:
        """Whether this build may have counted on a layer, even if it is not promised any more."""
        with self._lock:
            return diff_id in self._lost or diff_id in self._layers

    def was_lost(self, content: str) -> bool:
        """Whether a result was promised to this build, and was not to be had."""
        with self._lock:
            return content in self._lost_results

    def is_new(self, content: str) -> bool:
        """Whether the result was promised to this build, not to an earlier one."""
        with self._lock:
            return f"content:{content}" in self._new

    def layers(self) -> list[str]:
        """diff_ids of the promised layers that this build has come across."""
        with self._lock:
            return list(self._layers)

    def base(self, diff_id: str) -> Promise | None:
        """What is known of a layer of an image from outside."""
        if not self.active:
            return None
        with self._lock:
            found = self._bases.get(diff_id)
        if found is None:
            name = f"base:{diff_id}"
            found = Promise.parse(self._remembered([name]).get(name))
        return found if found is not None and self._may_be_used(found) else None

    def listing(self, diff_id: str) -> bytes | None:
        with self._lock:
            found = self._listings.get(diff_id)
        name = f"listing:{diff_id}"
        return found if found is not None else self._remembered([name]).get(name)

    def _remembered(self, names: Collection[str]) -> Mapping[str, bytes]:
        return {} if self._strict else self._store.get_many("promised", names)

    def _may_be_used(self, promise: Promise) -> bool:
        layer, origin = promise.result.layer, promise.origin
        there = origin.server == self._server and origin.namespace in self._namespaces
        return there and (layer is None or layer.diff_id not in self._refused)

    # what is learnt

    def note(self, found: Recipe, promise: Promise, recipe: str = "") -> None:
        """A server has the result. recipe: its key, "" if it was found by its content."""
        content = found.content
        if not self._may_be_used(promise):
            return
        self._keep(content, promise)
        layer = promise.result.layer
        with self._lock:
            self._new[f"content:{content}"] = promise.encode(time.time())
            if recipe:
                self._recipes[recipe] = self._new[f"recipe:{recipe}"] = found.encode()
            if layer is not None:
                self._new[f"layer:{layer.diff_id}"] = content.encode()

    def note_base(self, diff_id: str, promise: Promise) -> None:
        with self._lock:
            self._bases[diff_id] = promise
            self._new[f"base:{diff_id}"] = promise.encode(time.time())

    def note_listing(self, diff_id: str, data: bytes) -> None:
        with self._lock:
            self._listings[diff_id] = data
            if len(data) <= MAX_LISTING:
                self._new[f"listing:{diff_id}"] = data

    def _keep(self, content: str, promise: Promise) -> None:
        with self._lock:
            self._contents[content] = promise
            if promise.result.layer is not None:
                self._layers[promise.result.layer.diff_id] = content

    def drop(self, diff_id: str, *, refuse: bool) -> None:
        """The server has not got this layer any more. refuse: it has, but other bytes: it is not believed again."""
        with self._lock:
            self._lost.add(diff_id)
            if refuse:
                self._refused.add(diff_id)
            content = self._layers.pop(diff_id, "")
            gone = {key for key, promise in self._contents.items() if promise.diff_id == diff_id} | {content} - {""}
            self._lost_results |= gone
            recipes = [key for key, value in self._recipes.items() if content_in(value) in gone]
            for key in gone:
                self._contents.pop(key, None)
            for key in recipes:
                del self._recipes[key]
            self._listings.pop(diff_id, None)
            self._bases.pop(diff_id, None)
            names = [f"layer:{diff_id}", f"listing:{diff_id}", f"base:{diff_id}"]
            names += [f"content:{key}" for key in gone] + [f"recipe:{key}" for key in recipes]
            for name in names:
                self._new.pop(name, None)
        self._store.commit(Batch(deleted=tuple(("promised", name) for name in names)))

    def batch(self) -> Batch:
        """What was learnt since the last one, as records."""
        with self._lock:
            new, self._new = self._new, {}
        return Batch(records=tuple(("promised", key, value) for key, value in new.items()))


def trim(store: LmdbStore) -> None:
    """Forget the older half of the promises once there are too many."""
    with store.view() as view:
        if view.count("promised") <= MAX_PROMISES:
            return
        ages = {key: _age(value) for key, value in view.scan("promised", "content:")}
    old = {key.removeprefix("content:") for key in sorted(ages, key=ages.__getitem__)[: len(ages) // 2 + 1]}
    with store.transaction() as view:
        _forget(view, old)


def _forget(view: View, old: set[str]) -> None:
    # Nothing may be deleted while records are read; listings are long, and are not looked at.
    rows = [(key, value if key.startswith(("recipe:", "layer:")) else b"") for key, value in view.scan("promised")]
    kept: set[str] = set()

    def delete(key: str) -> None:
        view.delete("promised", key)

    for key, value in rows:
        kind, _, name = key.partition(":")
        if kind == "content" and name in old:
            delete(key)
        elif kind in ("recipe", "layer"):
            if content_in(value) in old:
                delete(key)
            elif kind == "layer":
                kept.add(name)
    for key, _ in rows:
        kind, _, name = key.partition(":")
        if kind in ("listing", "base") and name not in kept:
            delete(key)


def _age(value: bytes) -> int:
    try:
        return int(encoding.parse(value)["at"])
    except encoding.UNREADABLE:
        return 0

