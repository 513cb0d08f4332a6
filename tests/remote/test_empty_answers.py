"""A server, or whoever is in between, that ends calls well and answers nothing."""

from __future__ import annotations

from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from team import warnings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import MakeMachine


class _Silent(grpc.GenericRpcHandler):
    def service(self, _details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(lambda _requests, _context: iter(()))  # type: ignore[arg-type]


@pytest.fixture
def silent() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[_Silent()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_build_goes_on_without_a_server_that_says_nothing(machine: MakeMachine, silent: str) -> None:
    alone = machine("a", remote=silent)
    ran = alone.build(alone.project("FROM busybox\nRUN echo 1 > /1\n")).ok()
    assert ran.executed == ["0.0", "0.1"]
    assert len(warnings(ran)) == 1
    assert "cannot be read" in warnings(ran)[0]
