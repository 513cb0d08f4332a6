"""What a worker removes to make room for layers: what helps, and not for a size that is only said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from keyed import Keyed

from cache.digest import Digest
from cache.errors import EnvironmentProblem
from cache.remote.caller import Caller
from cache.remote.trouble import Missing
from cache.remote_settings import RemoteSettings
from cache.result import Layer
from worker.fleet.hot_layers import HotLayers
from worker.fleet.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

TIB = 1 << 40


class _Absent(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.NOT_FOUND

    def details(self) -> str:
        return "no such blob"


class Server:
    """A server by what it says to reads. has: names of blobs that it shows."""

    def __init__(self) -> None:
        self.has: set[str] = set()
        self.caller = Caller(RemoteSettings(False, "127.0.0.1:1", ("",), ""))
        self.client = self.streams = self

    def of(self, _: str) -> Server:
        return self

    def Read(self, request: Any, **_: Any) -> Iterator[bytes]:  # noqa: N802
        if request.resource_name.removeprefix("blobs/blake3/") not in self.has:
            raise _Absent
        yield b"x"


class Worker:
    """What a worker has of layers."""

    def __init__(self, directory: Path) -> None:
        self.made = Keyed(directory)
        self.hot = HotLayers(self.made.store, self.made.library, None, 1 << 30)
        self.hot.load()
        self.server = Server()
        remotes: Any = self.server
        self.inputs = Inputs(self.made.store, self.made.library, self.hot, remotes)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    made.made.close()


def layer(tar: int, listing: int = 10) -> Layer:
    return Layer("sha256:" + "0" * 64, "0" * 64, Digest("1" * 64, tar), Digest("2" * 64, listing))


def bring(worker: Worker, wanted: Layer) -> None:
    worker.inputs.bring("", [wanted], lambda: False)


def test_a_layer_that_nobody_has_costs_none_of_those_that_are_here(worker: Worker) -> None:
    before = worker.hot.diff_ids()
    assert len(before) == 3
    with pytest.raises(Missing, match="has no layer sha256:0000"):
        bring(worker, layer(16 * TIB))
    assert worker.hot.diff_ids() == before


def test_one_that_there_cannot_be_room_for_costs_none_either(worker: Worker) -> None:
    before = worker.hot.diff_ids()
    for wanted in (layer(16 * TIB), layer(10, 16 * TIB)):
        worker.server.has = {str(wanted.tar), str(wanted.listing)}
        with pytest.raises(EnvironmentProblem, match="its disk is full"):
            bring(worker, wanted)
    assert worker.hot.diff_ids() == before


def test_what_makes_room_goes_the_least_lately_used_first(worker: Worker) -> None:
    first, *others = list(reversed(worker.hot.diff_ids()))
    size = worker.hot.total
    assert worker.hot.make_room(size + 1) == 0
    assert worker.hot.make_room(1) > 0
    assert list(reversed(worker.hot.diff_ids())) == others
    assert first not in others


def test_a_step_that_uses_a_layer_keeps_it(worker: Worker) -> None:
    worker.hot.hold(worker.hot.diff_ids()[:1])
    assert worker.hot.make_room(worker.hot.total) == 0
    assert len(worker.hot.diff_ids()) == 3
    worker.hot.let_go(worker.hot.diff_ids()[:1])
    assert worker.hot.make_room(worker.hot.total) > 0


def test_a_layer_that_a_step_both_needs_and_makes_is_let_go_in_the_end(worker: Worker) -> None:
    """As of a second `RUN true` on a first one."""
    names = worker.hot.diff_ids()
    worker.hot.hold(names)
    worker.hot.hold(names[:1])
    worker.hot.let_go([*names, names[0]])
    assert worker.hot.make_room(worker.hot.total) > 0
    assert worker.hot.diff_ids() == []
