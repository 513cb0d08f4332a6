"""Machines that share a cache server: stores of their own, one real server, and what moved on the wire."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "server")]

from serving import Serving  # noqa: E402
from team import CacheServer, Machine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


class MakeMachine(Protocol):
    def __call__(self, name: str, *arguments: str, remote: str | None = None, env: dict[str, str] | None = None) -> Machine: ...


class Serve(Protocol):
    def __call__(self, *arguments: str | Path, store: Path | None = None) -> Serving: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CacheServer]:
    """A server that lets everybody read and write."""
    made = CacheServer(tmp_path / "served")
    yield made
    made.stop()


@pytest.fixture
def machine(tmp_path: Path, busybox: Path, server: CacheServer) -> Iterator[MakeMachine]:
    """Makes machines that use the server, or another remote."""
    made: list[Machine] = []

    def make(name: str, *arguments: str, remote: str | None = None, env: dict[str, str] | None = None) -> Machine:
        made.append(Machine(tmp_path, busybox, name, remote or server.url, arguments, env))
        return made[-1]

    yield make
    for each in made:
        each.assert_clean()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts `buildgraph serve` as a program of its own, and ends it."""
    started: list[Serving] = []

    def start(*arguments: str | Path, store: Path | None = None) -> Serving:
        started.append(Serving(tmp_path, *arguments, store=store))
        return started[-1]

    yield start
    for each in started:
        each.end()
