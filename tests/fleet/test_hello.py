"""How a worker says who it is: once for each stream, after the server's challenge."""

from __future__ import annotations

import queue
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

import grpc
import pytest
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import fleet_pb2_grpc
from scheduled import SECONDS, SOON, Scheduled, Stream

from cache.remote.caller import Caller
from cache.remote_settings import RemoteSettings
from worker.fleet.agent_stream import WELCOME_SECONDS, AgentStream

if TYPE_CHECKING:
    from collections.abc import Iterator

DENIED = grpc.StatusCode.PERMISSION_DENIED


def unsaid(fleet: Scheduled) -> Stream:
    """A stream on which nothing was said so far."""
    return Stream(fleet_pb2_grpc.FleetWorkersStub(fleet.channel()).Work, "w")


def test_a_hello_that_somebody_else_saw_is_of_no_use_to_them(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    thief = unsaid(fleet)
    thief.requests.put(pb.WorkerMessage(hello=worker.hello))
    assert thief.failure()[0] is DENIED
    thief.close()
    assert not worker.ended.is_set(), "the worker keeps its name and its stream"
    assert fleet.state().workers[0].state == "ready"


def test_each_stream_has_a_challenge_of_its_own_which_comes_first(fleet: Scheduled) -> None:
    streams = [unsaid(fleet) for _ in range(3)]
    nonces = {bytes(stream.take("challenge").nonce) for stream in streams}
    assert {len(nonce) for nonce in nonces} == {32}
    assert len(nonces) == 3
    for stream in streams:
        stream.close()


class Silent(fleet_pb2_grpc.FleetWorkersServicer):
    """A server that says what it is told to, and keeps what it hears."""

    def __init__(self) -> None:
        self.says: queue.SimpleQueue[pb.SchedulerMessage] = queue.SimpleQueue()
        self.heard: queue.SimpleQueue[pb.WorkerMessage] = queue.SimpleQueue()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        fleet_pb2_grpc.add_FleetWorkersServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Work(self, requests: Iterator[pb.WorkerMessage], _: grpc.ServicerContext) -> Iterator[pb.SchedulerMessage]:  # noqa: N802
        def hear() -> None:
            try:
                for request in requests:
                    self.heard.put(request)
            except grpc.RpcError:
                pass
            finally:
                self.says.put(pb.SchedulerMessage())

        threading.Thread(target=hear, daemon=True).start()
        while (message := self.says.get()).WhichOneof("message"):
            yield message

    def challenge(self, nonce: bytes) -> None:
        self.says.put(pb.SchedulerMessage(challenge=pb.SchedulerMessage.Challenge(nonce=nonce)))

    def stop(self) -> None:
        self._server.stop(0).wait()


class Listening:
    """What an agent is to its stream, as far as it is asked here."""

    def hello(self, nonce: bytes) -> pb.WorkerMessage.Hello:
        return pb.WorkerMessage.Hello(name="w1", signature=nonce)


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.stop()


def running(silent: Silent) -> tuple[AgentStream, threading.Thread]:
    def run() -> None:
        with pytest.raises(grpc.RpcError):
            stream.run()

    stream = AgentStream(Caller(RemoteSettings(False, f"127.0.0.1:{silent.port}", ("",), "")), Listening())  # type: ignore[arg-type]
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return stream, thread


def test_a_worker_says_nothing_before_the_challenge_and_answers_only_the_first(silent: Silent) -> None:
    stream, thread = running(silent)
    time.sleep(SOON)
    assert silent.heard.empty()
    silent.challenge(b"first")
    assert silent.heard.get(timeout=SECONDS).hello.signature == b"first"
    silent.challenge(b"second")
    time.sleep(SOON)
    assert silent.heard.empty(), "nobody gets a worker to sign one challenge after another"
    stream.look(time.monotonic() + WELCOME_SECONDS + 1)
    thread.join(SECONDS)
    assert not thread.is_alive(), "a greeting without a welcome has its end, too"


def test_a_server_that_sends_no_challenge_is_not_waited_for_without_an_end(silent: Silent) -> None:
    stream, thread = running(silent)
    time.sleep(SOON)
    stream.look(time.monotonic() + WELCOME_SECONDS - 10)
    thread.join(SOON)
    assert thread.is_alive()
    stream.look(time.monotonic() + WELCOME_SECONDS + 1)
    thread.join(SECONDS)
    assert not thread.is_alive()
