"""The server as a whole: what it says it can do, health, failures, start and end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NoReturn

import grpc
import pytest
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import remote_execution_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from live import Live, digest, failure, noise, read_name, write_name, write_requests

from cache.errors import EnvironmentProblem, StoreProblem
from cache.server.access import OpenGuard
from cache.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("namespace", ["", "main", "moon-outputs", "a/b/c", "remote-execution", "x" * 100])
def test_capabilities_that_real_clients_ask_for(live: Live, namespace: str) -> None:
    answer = live.capabilities.GetCapabilities(pb.GetCapabilitiesRequest(instance_name=namespace))
    assert (answer.low_api_version.major, answer.low_api_version.minor) == (2, 0)
    assert (answer.high_api_version.major, answer.high_api_version.minor) == (2, 12)
    cache = answer.cache_capabilities
    assert set(cache.digest_functions) == {pb.DigestFunction.SHA256, pb.DigestFunction.BLAKE3}
    assert pb.Compressor.ZSTD in cache.supported_compressors
    assert pb.Compressor.ZSTD in cache.supported_batch_update_compressors
    assert cache.max_batch_total_size_bytes < 4 << 20
    assert (cache.split_blob_support, cache.splice_blob_support) == (True, True)
    assert cache.fast_cdc_2020_params.avg_chunk_size_bytes == 524288
    assert not answer.HasField("execution_capabilities"), "nothing is executed here"


@pytest.mark.parametrize("namespace", ["/", "a/", "/a", "a//b", "..", "a/../b", ".", "a b", "ä", "a\n", "x" * 101, "blobs", "a/uploads/b"])
def test_names_that_are_no_namespaces(live: Live, namespace: str) -> None:
    refused = failure(lambda: live.capabilities.GetCapabilities(pb.GetCapabilitiesRequest(instance_name=namespace)))
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT


def test_health(live: Live) -> None:
    stub = health_pb2_grpc.HealthStub(live.channel)
    for service in ("", "build.bazel.remote.execution.v2.ActionCache", "google.bytestream.ByteStream", "buildgraph.v1.Team"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
    assert failure(lambda: stub.Check(health_pb2.HealthCheckRequest(service="other"))).code == grpc.StatusCode.NOT_FOUND
    live.server.drain()
    assert stub.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING
    live.put(b"calls are still answered")


def test_reflection_is_off_unless_asked_for(live: Live, started: Callable[..., Live]) -> None:
    def services(server: Live) -> list[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = list(reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo(iter([request])))
        return [service.name for service in answers[0].list_services_response.service]

    assert failure(lambda: services(live)).code == grpc.StatusCode.UNIMPLEMENTED
    names = services(started(reflection=True))
    assert "build.bazel.remote.execution.v2.ContentAddressableStorage" in names
    assert "buildgraph.v1.Team" in names


def test_a_port_that_is_taken(live: Live) -> None:
    with pytest.raises(EnvironmentProblem) as problem:
        Server(live.store, f"127.0.0.1:{live.server.port}", OpenGuard("read"))
    assert "--listen" in problem.value.hint


def test_what_runs_may_end_before_the_server_does(started: Callable[..., Live]) -> None:
    live = started()
    data = noise(2 << 20)
    slow = threading.Event()

    def requests() -> Iterator[bs.WriteRequest]:
        for request in write_requests(write_name(data), data, 1 << 20):
            yield request
            slow.wait(0.7)

    call = live.stream.Write.future(requests())
    deadline = time.monotonic() + 5
    while not live.server.core.watchdog.streams:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopping = threading.Thread(target=live.server.stop, args=(10,))
    stopping.start()
    assert call.result(10).committed_size == len(data)
    stopping.join(10)
    assert not stopping.is_alive()
    assert failure(lambda: live.missing(digest(data))).code == grpc.StatusCode.UNAVAILABLE
    live.server = Server(live.store, "127.0.0.1:0", live.guard)
    live.server.start()
    live.channel.close()
    live.channel = live.connect()


def test_nothing_is_left_of_uploads_that_never_ended(live: Live) -> None:
    data = noise(1 << 20)
    live.stream.Write(iter([bs.WriteRequest(resource_name=write_name(data), data=data[:1000])]))
    assert list((live.path / "runs").rglob("upload*"))
    live.again()
    assert not list((live.path / "runs").rglob("upload*"))
    assert live.missing(digest(data))


class BrokenGuard(OpenGuard):
    """Fails as nobody foresaw."""

    def __init__(self, error: Exception) -> None:
        super().__init__("read", "write")
        self.error = error

    def accept(self, caller: object, namespace: str, size: int) -> NoReturn:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreProblem("cannot write to the store /secret/place: it is full"), grpc.StatusCode.UNAVAILABLE),
        (ZeroDivisionError("secret"), grpc.StatusCode.INTERNAL),
    ],
)
def test_a_failure_of_the_server_is_one_line_without_its_inside(
    started: Callable[..., Live], caplog: pytest.LogCaptureFixture, error: Exception, code: grpc.StatusCode
) -> None:
    live = started(BrokenGuard(error))
    for call in (lambda: live.put(b"x"), lambda: live.write(b"x")):
        refused = failure(call)
        assert refused.code == code
        assert "log" in refused.text
        assert "secret" not in refused.text
        assert "Traceback" not in refused.text
    assert caplog.records
    assert all("\n" not in record.getMessage() and not record.exc_info for record in caplog.records)


def test_what_was_acknowledged_is_there_after_a_restart(live: Live) -> None:
    data = noise(100_000)
    live.write(data, namespace="a")
    live.put(b"small", namespace="a")
    live.again()
    assert live.read(read_name(data, "a")) == data
    assert live.get(digest(b"small"), namespace="a") == [b"small"]
    assert live.server.core.shelf.namespaces.known() == ("a",)


def test_a_full_disk_is_said_before_the_bytes_are_sent(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.server.refusal.MIN_FREE", 1 << 60)
    for call in (lambda: live.put(b"x"), lambda: live.write(noise(100_000))):
        refused = failure(call)
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "disk is full" in refused.text
