"""A server to attack, as a program of its own, and callers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "server")]

from serving import Client, Serving, make_token  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(*arguments: str) -> Serving:
        started.append(Serving(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def guarded(serve: Callable[..., Serving], tmp_path: Path) -> Serving:
    """For `other`, who may write in `main`, and for nobody else."""
    make_token(tmp_path / "served", "--name", "other", "--scope", "read,write", "--namespace", "main")
    return serve()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def connect(serving: Serving, token: str = "") -> Client:
        made.append(Client(serving.address, token))
        return made[-1]

    yield connect
    for each in made:
        each.close()
