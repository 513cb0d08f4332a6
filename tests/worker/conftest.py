"""What tests of the worker share: a store for all tests of a module, and a small context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.lmdb_store import LmdbStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path_factory.mktemp("store")))
    yield opened
    opened.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    for name in ("a", "b", "dir/c", "dir/deep/d"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return directory
