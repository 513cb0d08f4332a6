"""A live server for each test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """Anybody may read and write."""
    made = Live(tmp_path / "store")
    yield made
    made.stop()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Starts a server with options of one's own."""
    all_of_them: list[Live] = []

    def start(*arguments: object, **options: object) -> Live:
        all_of_them.append(Live(tmp_path / f"store-{len(all_of_them)}", *arguments, **options))  # type: ignore[arg-type]
        return all_of_them[-1]

    yield start
    for each in all_of_them:
        each.stop()
