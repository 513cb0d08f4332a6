"""What tests of the worker share: a store for all tests of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.lmdb_store import LmdbStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path_factory.mktemp("store")))
    yield opened
    opened.close()
