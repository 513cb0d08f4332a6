"""What tests of the server share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serving import Client, Serving
from shelved import Shelved

if TYPE_CHECKING:
    from collections.abc import Iterator


class Serve(Protocol):
    def __call__(self, *arguments: str | Path, store: Path | None = None) -> Serving: ...


class Connect(Protocol):
    def __call__(self, serving: Serving, token: str = "") -> Client: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers, and ends them."""
    started: list[Serving] = []

    def start(*arguments: str | Path, store: Path | None = None) -> Serving:
        started.append(Serving(tmp_path, *arguments, store=store))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients, and closes them."""
    made: list[Client] = []

    def connect(serving: Serving, token: str = "") -> Client:
        made.append(Client(serving.address, token))
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def shelved(tmp_path: Path) -> Iterator[Shelved]:
    """What a server would keep, put there without one."""
    made = Shelved(tmp_path / "served")
    yield made
    made.close()
