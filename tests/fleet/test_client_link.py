"""The stream between a build and the scheduler: who is told what, what a broken one costs, and when it is given up."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from concurrent import futures
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from buildgraph.v1 import fleet_pb2, fleet_pb2_grpc

from cache.remote.caller import Caller
from cache.remote_settings import RemoteSettings
from compiler.fleet.link import LOST_SECONDS, Link, Lost, Reopened, Watch
from worker.fleet.protocol import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60.0
"""For anything that is expected to come."""


class Line:
    """One call as the scheduler's side has it: what came, and what is to go out."""

    def __init__(self, requests: Iterator[fleet_pb2.BuildRequest], context: grpc.ServicerContext) -> None:
        self.came: queue.Queue[fleet_pb2.BuildRequest | None] = queue.Queue()
        self.out: queue.Queue[fleet_pb2.BuildEvent | grpc.StatusCode | None] = queue.Queue()
        self.listens = threading.Event()
        self.listens.set()
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        self.context = context

    def _read(self, requests: Iterator[fleet_pb2.BuildRequest]) -> None:
        with contextlib.suppress(Exception):
            for request in requests:
                self.came.put(request)
                self.listens.wait()
        self.came.put(None)

    def next(self) -> fleet_pb2.BuildRequest | None:
        return self.came.get(timeout=SECONDS)

    def say(self, **event: Any) -> None:
        self.out.put(fleet_pb2.BuildEvent(**event))

    def open(self, version: int = VERSION) -> fleet_pb2.OpenBuild:
        first = self.next()
        assert first is not None
        self.say(opened=fleet_pb2.BuildOpened(version=version, workers=2, slots=3))
        return first.open


class Scheduler(fleet_pb2_grpc.FleetServicer):
    """Does what a test says, over a real server. refuse: the answer to every call instead."""

    def __init__(self, port: int = 0) -> None:
        self.lines: queue.Queue[Line] = queue.Queue()
        self._all: list[Line] = []
        self.refuse: grpc.StatusCode | None = None
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        fleet_pb2_grpc.add_FleetServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def Build(self, requests: Iterator[fleet_pb2.BuildRequest], context: grpc.ServicerContext) -> Iterator[fleet_pb2.BuildEvent]:  # noqa: N802
        if self.refuse is not None:
            context.abort(self.refuse, "no")
        line = Line(requests, context)
        self._all.append(line)
        self.lines.put(line)
        while (event := line.out.get()) is not None:
            if isinstance(event, grpc.StatusCode):
                context.abort(event, "broken")
            yield event

    def line(self) -> Line:
        return self.lines.get(timeout=SECONDS)

    def stop(self) -> None:
        for line in self._all:
            line.out.put(None)
        self._server.stop(0).wait()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler()
    yield made
    made.stop()


def link_to(port: int, lost_seconds: float = LOST_SECONDS, **options: Any) -> Link:
    settings = RemoteSettings(False, f"127.0.0.1:{port}", ("",), "")
    opening = fleet_pb2.OpenBuild(version=VERSION, build="b1", instance_name="main")
    return Link(SimpleNamespace(caller=Caller(settings)), opening, lost_seconds, **options)  # type: ignore[arg-type]  # all that it uses


def opened(scheduler: Scheduler, lost_seconds: float = LOST_SECONDS) -> tuple[Link, Line]:
    link = link_to(scheduler.port, lost_seconds)
    lines: list[Line] = []

    def answer() -> None:
        lines.append(scheduler.line())
        assert lines[0].open().build == "b1"

    thread = threading.Thread(target=answer)
    thread.start()
    found = link.open()
    thread.join()
    assert found is not None
    assert (found.workers, found.slots) == (2, 3)
    return link, lines[0]


def wanted(key: str) -> fleet_pb2.ExecuteAction:
    return fleet_pb2.ExecuteAction(action=fleet_pb2.ActionOrder(key=key), text=f"RUN {key}")


def heard(watch: Watch) -> Any:
    event = watch.next(SECONDS)
    assert event is not None, "nothing was told"
    return event


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE])
def test_a_fleet_that_is_not_for_us_is_none(scheduler: Scheduler, code: grpc.StatusCode) -> None:
    scheduler.refuse = code
    began = time.monotonic()
    assert link_to(scheduler.port).open() is None
    assert time.monotonic() - began < 15, "and that is known at once"


@pytest.mark.parametrize("at", ["first", "later"])
def test_a_scheduler_that_speaks_another_language_is_left_alone_with_one_warning(scheduler: Scheduler, at: str) -> None:
    warned: list[str] = []
    link = link_to(scheduler.port, warn=warned.append)
    answers = threading.Thread(target=lambda: scheduler.line().open(VERSION if at == "later" else VERSION + 1))
    answers.start()
    found = link.open()
    answers.join()
    if at == "later":
        assert found is not None
        scheduler._all[0].out.put(grpc.StatusCode.UNAVAILABLE)
        scheduler.line().open(VERSION + 1)
        assert isinstance(heard(link.want(wanted("one"))), Lost)
    else:
        assert found is None
    assert link.lost
    assert link.refused
    text = f"the scheduler speaks version {VERSION + 1} of the fleet's protocol, and this program knows only {VERSION}"
    assert warned == [f"{text}; the build goes on without the fleet"]
    link.close()


def test_each_action_is_told_what_concerns_it(scheduler: Scheduler) -> None:
    link, line = opened(scheduler)
    one, two = link.want(wanted("one")), link.want(wanted("two"))
    assert [line.next().execute.text for _ in range(2)] == ["RUN one", "RUN two"]  # type: ignore[union-attr]
    line.say(queued=fleet_pb2.ActionQueued(key="two", reason="no slot is free"))
    line.say(started=fleet_pb2.ActionStarted(key="one", lease="l1", worker="w1"))
    line.say(sealed=fleet_pb2.Sealed(lease="l1", channel="ssh:default:1"))
    line.say(sealed=fleet_pb2.Sealed(lease="another's", channel="secrets"))
    line.say(log=fleet_pb2.ActionLog(key="one", data=b"hello\n"))
    line.say(done=fleet_pb2.ActionDone(key="nobody's", worker="w9"))
    line.say(done=fleet_pb2.ActionDone(key="one", worker="w1"))
    assert heard(two).queued.reason == "no slot is free"
    assert heard(one).started.worker == "w1"
    assert heard(one).sealed.channel == "ssh:default:1"
    assert heard(one).log.data == b"hello\n"
    assert heard(one).done.worker == "w1"
    assert one.next(0.1) is None
    assert two.next(0.1) is None
    link.close()


def test_what_nobody_wants_any_more_is_cancelled(scheduler: Scheduler) -> None:
    link, line = opened(scheduler)
    one, two = link.want(wanted("one")), link.want(wanted("two"))
    line.next(), line.next()
    link.forget(one, cancel=False)
    link.forget(two, cancel=True)
    assert line.next().cancel == "two"  # type: ignore[union-attr]
    link.close()
    assert line.next() is None, "the stream ends with the build"


def test_a_broken_stream_is_opened_again_for_the_same_build(scheduler: Scheduler) -> None:
    link, line = opened(scheduler)
    watch, done = link.want(wanted("one")), link.want(wanted("two"))
    line.next(), line.next()
    link.forget(done, cancel=False)
    line.out.put(grpc.StatusCode.UNAVAILABLE)
    again = scheduler.line()
    assert again.open().build == "b1"
    assert again.next().execute.action.key == "one", "what is still wanted, and nothing else"  # type: ignore[union-attr]
    assert isinstance(heard(watch), Reopened)
    again.say(done=fleet_pb2.ActionDone(key="one", worker="w2"))
    assert heard(watch).done.worker == "w2"
    assert again.came.empty()
    link.close()


def test_a_scheduler_that_starts_again_is_found(scheduler: Scheduler) -> None:
    link, line = opened(scheduler)
    watch = link.want(wanted("one"))
    line.next()
    scheduler.stop()
    other = Scheduler(scheduler.port)
    try:
        again = other.line()
        again.open()
        assert again.next().execute.action.key == "one"  # type: ignore[union-attr]
        assert isinstance(heard(watch), Reopened)
    finally:
        link.close()
        other.stop()


@pytest.mark.parametrize("refused", [True, False])
def test_a_scheduler_that_is_gone_is_given_up(scheduler: Scheduler, refused: bool) -> None:
    link, line = opened(scheduler, lost_seconds=60 if refused else 1)
    watch = link.want(wanted("one"))
    line.next()
    scheduler.refuse = grpc.StatusCode.PERMISSION_DENIED if refused else grpc.StatusCode.UNAVAILABLE
    began = time.monotonic()
    line.out.put(grpc.StatusCode.UNAVAILABLE)
    assert isinstance(heard(watch), Lost)
    assert time.monotonic() - began < 15
    assert link.lost
    assert link.gave_up
    assert isinstance(heard(link.want(wanted("two"))), Lost), "and whoever comes later is told so"
    link.close()


@pytest.mark.parametrize("alive", [True, False])
def test_a_server_that_was_waited_for_is_not_waited_for_by_each_call_anew(scheduler: Scheduler, alive: bool) -> None:
    link, line = opened(scheduler, lost_seconds=1)
    watch = link.want(wanted("one"))
    line.next()
    scheduler.refuse = grpc.StatusCode.UNAVAILABLE
    if alive:  # all but its scheduler
        line.out.put(grpc.StatusCode.UNAVAILABLE)
    else:
        scheduler.stop()
    assert isinstance(heard(watch), Lost)
    assert link._client.caller.down is not alive
    link.close()


def test_a_server_that_says_nothing_is_not_waited_for(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.fleet.link.CONNECT_SECONDS", 0.5)
    link = link_to(scheduler.port)
    began = time.monotonic()
    assert link.open() is None
    assert time.monotonic() - began < 4.5, "5 s are the usual"


def test_closing_ends_what_is_opened_again_and_again(scheduler: Scheduler) -> None:
    link, line = opened(scheduler, lost_seconds=60)
    scheduler.refuse = grpc.StatusCode.UNAVAILABLE
    line.out.put(grpc.StatusCode.UNAVAILABLE)
    time.sleep(0.3)
    began = time.monotonic()
    link.close()
    assert time.monotonic() - began < 15
    assert not link._thread.is_alive()
    assert not link.gave_up


def test_a_flood_of_output_waits_for_whoever_reads_it(scheduler: Scheduler) -> None:
    link, line = opened(scheduler)
    watch, other = link.want(wanted("one")), link.want(wanted("two"))
    for number in range(1000):
        line.say(log=fleet_pb2.ActionLog(key="one", data=b"%d\n" % number))
    line.say(done=fleet_pb2.ActionDone(key="two", worker="w1"))
    until = time.monotonic() + SECONDS
    while not watch._events.full():
        assert time.monotonic() < until, "it waits too soon"
        time.sleep(0.01)
    assert other.next(0.3) is None, "what comes later waits with the stream"
    assert [heard(watch).log.data for _ in range(1000)] == [b"%d\n" % number for number in range(1000)]
    assert heard(other).done.worker == "w1"
    link.close()


def test_what_agents_say_waits_for_a_server_that_takes_it(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.fleet.link.ROOM_SECONDS", 0.5)
    link, line = opened(scheduler)
    line.listens.clear()
    sent = 0
    while link.wait_for_room():
        link.seal(fleet_pb2.Sealed(lease="l1", channel="ssh:default:1", data=bytes(64 << 10)))
        sent += 64 << 10
        assert sent < 16 << 20
    line.listens.set()
    monkeypatch.setattr("compiler.fleet.link.ROOM_SECONDS", SECONDS)
    assert link.wait_for_room()
    line.out.put(grpc.StatusCode.UNAVAILABLE)
    while link._requests is not None:
        time.sleep(0.01)
    threading.Timer(0.5, lambda: scheduler.line().open()).start()
    assert link.wait_for_room(), "also for another stream"
    link.close()
    assert not link.wait_for_room()


def test_one_who_reads_no_more_does_not_hold_up_the_others(scheduler: Scheduler) -> None:
    link, line = opened(scheduler)
    watch, other = link.want(wanted("one")), link.want(wanted("two"))
    for _ in range(1000):
        line.say(log=fleet_pb2.ActionLog(key="one", data=b"x\n"))
    line.say(done=fleet_pb2.ActionDone(key="two", worker="w1"))
    link.forget(watch, cancel=True)
    assert heard(other).done.worker == "w1"
    link.close()
