"""A result that is damaged on its way to the server, where nothing can tell: whoever sent it sees that, and mends it."""

from __future__ import annotations

import re
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from team import warnings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import MakeMachine
    from team import CacheServer

PUT = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult"
DIFF_ID = re.compile(rb"sha256:[0-9a-f]{64}")
DOCKERFILE = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /1\nRUN cp /1 /2\n"


class Damaging(grpc.GenericRpcHandler):
    """Passes everything on as it is, but for the first layer's name in the first request for each result."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._seen: set[bytes] = set()
        self.damaged = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        on = self._channel.stream_stream(details.method)

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            sent = map(self._damage, requests) if details.method == PUT else requests
            try:
                yield from on(sent, timeout=30, metadata=[each for each in context.invocation_metadata() if each.key == "authorization"])
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.stream_stream_rpc_method_handler(answer)  # type: ignore[arg-type]

    def _damage(self, request: bytes) -> bytes:
        found = DIFF_ID.search(request)
        if found is None or request in self._seen:
            return request
        self._seen.add(request)
        self.damaged += 1
        changed = bytearray(request)
        last = found.end() - 1
        changed[last] = ord("0") if changed[last] != ord("0") else ord("1")
        return bytes(changed)


@pytest.fixture
def damaging(server: CacheServer) -> Iterator[tuple[Damaging, str]]:
    handler = Damaging(server.url.removeprefix("grpc://"))
    proxy = grpc.server(futures.ThreadPoolExecutor(16), handlers=[handler])
    port = proxy.add_insecure_port("127.0.0.1:0")
    proxy.start()
    yield handler, f"grpc://127.0.0.1:{port}"
    proxy.stop(None).wait()


def test_what_a_damaging_network_left_in_the_server_is_whole(
    machine: MakeMachine, damaging: tuple[Damaging, str], tmp_path: Path
) -> None:
    handler, url = damaging
    first, second = machine("a", remote=url), machine("b")
    first.build(first.project(DOCKERFILE)).ok()
    assert handler.damaged >= 2
    ran = second.build(second.project(DOCKERFILE), "-o", f"type=local,dest={tmp_path / 'out'}").ok()
    assert warnings(ran) == []
    assert ran.executed == []
