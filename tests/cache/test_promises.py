"""What servers promised is forgotten once it is too much: the older half, whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import promises
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.promises import Names, Origin, Promise, Promises, trim
from cache.recipe import Ground, Recipe
from cache.result import Layer, Result
from cache.store import Batch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ORIGIN = Origin("grpc://server", "", "blake3")


def test_the_older_half_goes_with_all_that_belongs_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "MAX_PROMISES", 20)
    store = LmdbStore(str(tmp_path))
    known = Promises(store, ORIGIN.server, ("",))
    for number in range(10):
        monkeypatch.setattr("cache.promises.time.time", lambda now=number: 1000.0 + now)
        blob = Digest.of(b"%d" % number)
        layer = Layer(f"sha256:{number:064}", f"{number:064}", blob, blob)
        promise = Promise(Result(layer, None, 1.0, 1.0, "me"), ORIGIN, Names(str(blob), str(blob), ""))
        known.note(Recipe(f"{number:064x}", (Ground(0, "a" * 32),)), promise, recipe=f"key {number}")
        known.note_listing(layer.diff_id, b"listing")
    store.commit(known.batch())
    trim(store)
    left = sorted(key for key, _ in store.scan("promised"))
    kept = [f"content:{number:064x}" for number in range(6, 10)]
    kept += [f"{kind}:sha256:{number:064}" for kind in ("layer", "listing") for number in range(6, 10)]
    assert left == sorted(kept + [f"recipe:key {number}" for number in range(6, 10)])
    store.commit(Batch())
    trim(store)
    assert sorted(key for key, _ in store.scan("promised")) == left, "there are few enough now"
    store.close()
