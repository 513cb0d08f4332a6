"""The scheduler within `buildgraph serve`: metrics, journal, and its end."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "server"))

import grpc
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import fleet_pb2_grpc
from scheduled import Stream, key
from serving import Serving, make_token

from worker.fleet.protocol import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(tmp_path, "--anonymous", "write,execute", "--grace", "20s")
    yield made
    made.end()


def _build(channel: grpc.Channel) -> Stream:
    request = pb.BuildRequest(open=pb.OpenBuild(version=VERSION, build="b1"))
    return Stream(fleet_pb2_grpc.FleetStub(channel).Build, "nobody in particular", request)


def test_metrics_say_what_the_fleet_does(serving: Serving) -> None:
    with grpc.insecure_channel(serving.address) as channel:
        build = _build(channel)
        assert build.take("opened").workers == 0
        build.requests.put(pb.BuildRequest(execute=pb.ExecuteAction(action=pb.ActionOrder(key=key(1), body=b"b"))))
        assert "no worker" in build.take("queued").reason
        assert serving.metric("buildgraph_fleet_builds") == 1
        assert serving.metric("buildgraph_fleet_queue") == 1
        assert serving.metric("buildgraph_fleet_workers") == 0
        assert serving.metric("buildgraph_fleet_slots") == 0
        assert serving.metric("buildgraph_fleet_leases") == 0
        assert serving.metric("buildgraph_fleet_decision_seconds_count") >= 2
        build.close()


def test_a_server_that_stops_does_not_wait_for_builds_and_workers(serving: Serving) -> None:
    with grpc.insecure_channel(serving.address) as channel:
        build = _build(channel)
        build.take("opened")
        since = time.monotonic()
        code, text = serving.stop()
        assert (code, "Traceback" in text) == (0, False)
        assert time.monotonic() - since < 10
        assert build.failure()[0] is grpc.StatusCode.UNAVAILABLE
        build.close()


def test_a_worker_that_may_not_join_is_in_the_journal(tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "reader", "--scope", "read")
    serving = Serving(tmp_path, store=tmp_path / "served")
    try:
        with grpc.insecure_channel(serving.address) as channel:
            stub = fleet_pb2_grpc.FleetWorkersStub(channel)
            hello = pb.WorkerMessage(hello=pb.WorkerMessage.Hello(version=VERSION, name="w1"))
            with pytest.raises(grpc.RpcError) as error:
                next(stub.Work(iter([hello]), metadata=[("authorization", f"Bearer {secret}")]))
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "needs both scopes" in str(error.value.details())
        assert serving.wait_for("refused")["method"] == "Work"
    finally:
        serving.end()
