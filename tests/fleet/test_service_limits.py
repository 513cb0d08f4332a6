"""The scheduler's service with those who send too much, take too little, or say what makes no sense."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import grpc
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import fleet_pb2_grpc
from scheduled import Scheduled, Stream, key

from worker.fleet.build_outbox import BuildOutbox
from worker.fleet.log_buffer import LogBuffer, LogSpace, left_out
from worker.fleet.outbox import Outbox
from worker.fleet.protocol import VERSION
from worker.fleet.service_limits import LOG_TAIL, MAX_BODIES, MAX_SEALED

K = key(1)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def test_who_reads_slowly_holds_nobody_up_and_gets_the_end(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    slow, quick = fleet.build("ann"), fleet.build("bob")
    slow.take("opened")
    slow.slow.clear()  # it takes nothing more, and flow control stops the server soon
    for build in (slow, quick):
        build.execute(K)
    lease = worker.lease()
    quick.take("started")
    line = b"x" * 99 + b"\n"
    piece = line * 600
    size = 12_000_000 // len(piece) * len(piece)
    for at in range(0, size, len(piece)):
        worker.log(lease.lease, piece, at)
    assert len(quick.log(K, size)) == size
    worker.done(lease)
    assert quick.take("done")
    assert worker.take("settled").taken
    time.sleep(2.5)
    slow.slow.set()
    slow.take("started")
    found = b""
    while not found.endswith(line * 100) or b"left out" not in found:
        found += slow.take("log").data
    assert slow.take("done").key == K
    assert len(found) < size
    before, marker, rest = found.partition(b"\n[\xe2\x80\xa6 ")
    assert marker
    assert line.startswith(before[len(before) // 100 * 100 :])
    said, _, rest = rest.partition(b" bytes of output left out; the whole log is with the result]\n")
    assert rest == line * (len(rest) // 100), "lines stay whole"
    assert len(before) + int(said) + len(rest) <= size <= len(before) + 1 + int(said) + len(rest)


def test_a_build_that_only_sends_waits_for_itself_alone(fleet: Scheduled) -> None:
    deaf = fleet.build()
    deaf.take("opened")
    deaf.slow.clear()
    for number in range(6_000):
        deaf.execute(key(number), platform="none")
    worker = fleet.worker().joined()
    build = fleet.build("bob")
    build.execute(key(10_000), platform="linux/amd64")
    worker.done(worker.lease())
    assert build.take("done")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "a b"}, INVALID), ({"name": ""}, INVALID), ({"slots": 0}, INVALID), ({"slots": 5_000}, INVALID),
        ({"version": VERSION + 1}, grpc.StatusCode.FAILED_PRECONDITION), ({"version": VERSION - 1}, grpc.StatusCode.FAILED_PRECONDITION), ({"version": 0}, INVALID), ({"key": b"x"}, INVALID),
        ({"memory": -1}, INVALID), ({"labels": {str(each): "" for each in range(100)}}, INVALID),
        ({"incarnation": "a b"}, INVALID),
        ({"leases": [pb.WorkerMessage.HeldLease(lease="1", key=K, seconds=float("nan"))]}, INVALID),
    ],
)  # fmt: skip
def test_a_hello_that_makes_no_sense_is_refused(fleet: Scheduled, fields: dict[str, Any], code: Any) -> None:
    hello = {"version": VERSION, "name": "w1", "slots": 1, "key": b"k" * 32, "incarnation": "i"} | fields
    method = fleet_pb2_grpc.FleetWorkersStub(fleet.channel()).Work
    stream = Stream(method, "w", pb.WorkerMessage(hello=pb.WorkerMessage.Hello(**hello)))
    assert stream.failure()[0] is code


@pytest.mark.parametrize(
    "message",
    [
        pb.BuildRequest(open=pb.OpenBuild(version=VERSION, build="x")),
        pb.BuildRequest(cancel="nothing"),
        pb.BuildRequest(execute=pb.ExecuteAction(action=pb.ActionOrder(key="short", body=b"b"))),
        pb.BuildRequest(execute=pb.ExecuteAction(action=pb.ActionOrder(key=K))),
        pb.BuildRequest(execute=pb.ExecuteAction(action=pb.ActionOrder(key=K, body=bytes(2 << 20)))),
        pb.BuildRequest(execute=pb.ExecuteAction(action=pb.ActionOrder(key=K, body=b"b"), needs=pb.Needs(critical=float("inf")))),
        pb.BuildRequest(execute=pb.ExecuteAction(action=pb.ActionOrder(key=K, body=b"b"), needs=pb.Needs(seconds=-1.0))),
        pb.BuildRequest(execute=pb.ExecuteAction(action=pb.ActionOrder(key=K, body=b"b", retry=10_000))),
        pb.BuildRequest(sealed=pb.Sealed(lease="1", channel="c", data=bytes(400 << 10))),
    ],
)
def test_a_request_that_makes_no_sense_ends_its_stream_and_no_other(fleet: Scheduled, message: pb.BuildRequest) -> None:
    wrong, right = fleet.build(), fleet.build()
    wrong.requests.put(message)
    code, text = wrong.failure()
    assert code is INVALID
    assert text
    worker = fleet.worker().joined()
    right.execute(K)
    worker.done(worker.lease())
    assert right.take("done")


def test_what_is_too_much_to_wait_is_declined_and_explained(fleet: Scheduled) -> None:
    build = fleet.build()
    fleet.service.desk.bodies += MAX_BODIES
    build.execute(K)
    assert build.take("declined").reason == "too much waits already"
    (said,) = fleet.fleet().Explain(pb.ExplainRequest(action=K), metadata=[("name", "ann")]).decisions
    assert (said.reason, said.text) == ("TOO_MUCH", "too much waits already")


def test_a_build_needs_a_name_that_is_one(fleet: Scheduled) -> None:
    assert fleet.build(name="a/b").failure()[0] is INVALID
    assert fleet.build(version=7).failure()[0] is grpc.StatusCode.FAILED_PRECONDITION


def test_streams_do_not_take_the_threads_of_short_calls(fleet: Scheduled) -> None:
    builds = [fleet.build() for _ in range(150)]  # the usual pool has 128
    for build in builds:
        build.take("opened")
    assert len(fleet.state().builds) == 150


def test_no_caller_has_all_the_streams(fleet: Scheduled) -> None:
    stub = fleet.fleet()
    calls = [stub.Watch(pb.WatchRequest(), metadata=[("name", "ann")]) for _ in range(16)]
    for call in calls:
        next(call)
    with pytest.raises(grpc.RpcError) as error:
        fleet.state("ann")
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert fleet.state("bob").at
    for call in calls:
        call.cancel()


def test_one_hello_is_enough(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    worker.send(hello=pb.WorkerMessage.Hello(version=VERSION, name="w2"))
    assert worker.failure()[0] is INVALID


# the parts by themselves


def test_a_log_says_what_it_did_not_keep(tmp_path: Path) -> None:
    space = LogSpace(str(tmp_path), limit=100_000, total=150_000)
    log, other = LogBuffer(space), LogBuffer(space)
    log.add(0, b"a" * 90_000)
    log.add(90_000, b"b" * 20_000)
    log.add(110_000, b"c" * 5)
    other.add(0, b"d" * 60_000)
    for each in (log, other):
        each.end()
        each.end()
    assert _all(log) == b"a" * 90_000 + b"b" * 10_000 + b"\n" + left_out(10_005)
    assert _all(other) == b"d" * 50_000 + b"\n" + left_out(10_000)
    assert not os.listdir(tmp_path), "files have no names"
    for each in (log, other):
        each.let_go()
    assert space.take(150_000) == 150_000, "the room is free again"


def test_a_log_knows_where_each_piece_belongs(tmp_path: Path) -> None:
    log = LogBuffer(LogSpace(str(tmp_path)))
    log.add(0, b"one\n")
    log.add(2, b"e\ntwo\n")  # sent again, by a worker that was cut off
    log.add(0, b"one\n")
    log.add(20, b"three\n")
    assert _all(log) == b"one\ntwo\n" + left_out(12) + b"three\n"
    log.let_go()
    log.add(26, b"late\n")
    assert _all(log) == b""


def test_a_log_whose_files_cannot_be_written_goes_on_without(tmp_path: Path) -> None:
    log = LogBuffer(LogSpace(str(tmp_path / "missing")))
    log.add(0, b"short\n")
    log.add(6, b"x" * 100_000)
    log.end()
    assert _all(log) == b"short\n" + left_out(100_000)
    log.let_go()


def _all(log: LogBuffer) -> bytes:
    found = b""
    while piece := log.read(len(found), 1_000):
        found += piece
    return found


def test_states_come_before_logs_and_the_end_after(tmp_path: Path) -> None:
    log = LogBuffer(LogSpace(str(tmp_path)))
    box = BuildOutbox()
    box.follow("k", "l1", log)
    log.add(0, b"a line\n")
    box.settle("k", pb.BuildEvent(done=pb.ActionDone(key="k")))
    box.put(pb.BuildEvent(queued=pb.ActionQueued(key="other")))
    log.add(7, b"the last\n")
    box.finish()
    found = []
    while (event := box.take()) is not None:
        found.append(event)
    assert [event.WhichOneof("message") for event in found] == ["queued", "log", "done"]
    assert found[1].log.data == b"a line\nthe last\n"


def test_the_end_of_a_log_is_not_waited_for_without_an_end(tmp_path: Path) -> None:
    log = LogBuffer(LogSpace(str(tmp_path)))
    box = BuildOutbox(drain_seconds=0.0)
    box.follow("k", "l1", log)
    lines = b"".join(b"%07d\n" % number for number in range(200_000))
    log.add(0, lines)
    box.settle("k", pb.BuildEvent(done=pb.ActionDone(key="k")))
    box.finish()
    found = b""
    while (event := box.take()) is not None:
        found += event.log.data
    marker, _, rest = found.partition(b"]\n")
    count = int(marker.split()[1])
    assert found.startswith(left_out(count))
    assert rest == lines[count:]
    assert LOG_TAIL * 0.9 < len(rest) <= LOG_TAIL
    log.let_go()


def test_a_box_that_nobody_empties_ends_its_stream() -> None:
    box: Outbox[int] = Outbox(limit=3)
    for number in range(4):
        box.put(number)
    assert box.ended is not None
    assert box.ended.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert box.take() is None


def test_sealed_bytes_have_a_bound_of_their_own() -> None:
    box: Outbox[int] = Outbox()
    assert box.put_sealed(1, MAX_SEALED)
    assert not box.put_sealed(2, 1)
    box.put(3)
    assert [box.take(), box.take()] == [1, 3]
    assert box.put_sealed(4, MAX_SEALED)


def test_whoever_waits_for_a_message_is_woken_and_who_takes_none_is_stuck() -> None:
    box: Outbox[int] = Outbox()
    threading.Timer(0.1, box.put, (7,)).start()
    assert box.take() == 7
    assert box.is_stuck(time.monotonic() + 61, 60)
    assert not box.is_stuck(time.monotonic() + 1, 60)
    threading.Timer(0.1, box.end).start()
    assert box.take() is None
    assert not box.is_stuck(time.monotonic() + 61, 60)
