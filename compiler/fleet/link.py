"""Link: the stream between one build and the scheduler, opened again when it breaks."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc
from buildgraph.v1 import fleet_pb2, fleet_pb2_grpc

from cache.remote.client import CONNECT_SECONDS
from compiler.fleet.pulse import Pulse
from worker.fleet.protocol import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.remote.client import Client

LOST_SECONDS = 60.0
"""How long a stream that broke is opened again and again; after that the build goes on without the fleet."""
END_SECONDS = 1.0
"""For the server to end a stream on which nothing more is asked."""
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
MOST_EVENTS = 256
"""Events of one action that wait to be looked at: of a log, 16 MiB. Then the stream waits, and the server with it."""
LOOK_SECONDS = 0.2
SEALED_ROOM = 1 << 20
"""Sealed bytes that wait while more of what agents answer is read."""
ROOM_SECONDS = 20.0
"""How long a connection to an agent waits for a stream that takes more of it, before it is ended."""
REFUSALS = frozenset(
    (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED,
     grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
)  # fmt: skip
"""What asking again does not change."""


class Reopened:
    """The stream broke, and is there again: what is known of the action is told once more."""


class Lost:
    """The stream is gone, and so is the fleet."""


Told = fleet_pb2.BuildEvent | Reopened | Lost


class Watch:
    """What the scheduler says of one action. Its `next` is for one thread."""

    def __init__(self, request: fleet_pb2.ExecuteAction) -> None:
        self.request = request
        self._events: queue.Queue[Told] = queue.Queue(MOST_EVENTS)
        self._over = threading.Event()

    def next(self, seconds: float) -> Told | None:
        """The next event; None if there is none for so long."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def tell(self, event: Told) -> None:
        while not self._over.is_set():
            try:
                self._events.put(event, timeout=LOOK_SECONDS)
            except queue.Full:
                continue
            return

    def close(self) -> None:
        """Nobody looks any more."""
        self._over.set()


class _Requests:
    """What goes out on one call, in order; ends with `end`. As many as actions, and what agents say, who wait for
    room."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: deque[fleet_pb2.BuildRequest] = deque()
        self._sealed = 0
        self._ended = False

    def put(self, request: fleet_pb2.BuildRequest) -> None:
        with self._changed:
            self._requests.append(request)
            self._sealed += len(request.sealed.data)
            self._changed.notify_all()

    def wait_for_room(self, seconds: float) -> bool:
        """Whether few sealed bytes wait, at the latest after so long; not after the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._sealed <= SEALED_ROOM, seconds)
            return not self._ended and self._sealed <= SEALED_ROOM

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[fleet_pb2.BuildRequest]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requests or self._ended)
                if not self._requests:
                    return
                request = self._requests.popleft()
                self._sealed -= len(request.sealed.data)
                self._changed.notify_all()
            yield request


def _newer(version: int) -> str:
    text = f"the scheduler speaks version {version} of the fleet's protocol, and this program knows only {VERSION}"
    return f"{text}; the build goes on without the fleet"


def _ignore(_: str) -> None:
    return


class Link:
    """All methods may be called from several threads. lost: nothing can be asked of the fleet any more. gave_up: not
    because it was closed. had_workers: there is a worker, or was since the build began. refused: the server said no,
    and asking again does not change that."""

    def __init__(
        self,
        client: Client,
        opening: fleet_pb2.OpenBuild,
        lost_seconds: float = LOST_SECONDS,
        warn: Callable[[str], None] = _ignore,
    ) -> None:
        """warn: is told what a user should know, from another thread."""
        self._warn = warn
        self._client = client
        self._opening = opening
        self._lost_seconds = lost_seconds
        self._stub = fleet_pb2_grpc.FleetStub(client.caller.channel)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._requests: _Requests | None = None
        self._call: Any = None
        self._watches: dict[str, Watch] = {}
        self._leases: dict[str, str] = {}
        self._pulse = Pulse(client.caller, opening.instance_name)
        self._taken_back: set[str] = set()
        """Keys that were asked for and are not wanted any more: a stream that breaks may swallow that."""
        self._opened: queue.SimpleQueue[fleet_pb2.BuildOpened | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self.lost = False
        self.gave_up = False
        self.had_workers = False
        self.refused = False

    def open(self) -> fleet_pb2.BuildOpened | None:
        """What the fleet is; None if there is none for us."""
        self._thread.start()
        found = self._opened.get()
        if found is None:
            self.close()
        return found

    def want(self, request: fleet_pb2.ExecuteAction) -> Watch:
        """Have an action made, until `forget`."""
        watch = Watch(request)
        with self._lock:
            self._watches[request.action.key] = watch
            self._taken_back.discard(request.action.key)
            lost = self.lost
            self._put(fleet_pb2.BuildRequest(execute=request))
        if lost:
            watch.tell(Lost())
        return watch

    def forget(self, watch: Watch, *, cancel: bool) -> None:
        """Look at it no more. cancel: nor is the result wanted."""
        key = watch.request.action.key
        watch.close()
        with self._lock:
            if self._watches.get(key) is watch:
                del self._watches[key]
                self._leases = {lease: of for lease, of in self._leases.items() if of != key}
                if cancel:
                    self._taken_back.add(key)
                    self._put(fleet_pb2.BuildRequest(cancel=key))

    @property
    def answers(self) -> bool:
        """Whether the scheduler is there, as far as is known without waiting."""
        with self._lock:
            return self._requests is not None and self._pulse.beats()

    def seal(self, sealed: fleet_pb2.Sealed) -> None:
        """Pass something on to the holder of a lease; lost if the stream is broken."""
        with self._lock:
            self._put(fleet_pb2.BuildRequest(sealed=sealed))

    def wait_for_room(self) -> bool:
        """Whether there is a stream that takes more of what is sealed, at the latest after ROOM_SECONDS."""
        until = time.monotonic() + ROOM_SECONDS
        while not (self.lost or self._closing.is_set()) and (left := until - time.monotonic()) > 0:
            requests = self._requests
            if requests is not None and requests.wait_for_room(left):
                return True
            self._closing.wait(min(left, LOOK_SECONDS))
        return False

    def _put(self, request: fleet_pb2.BuildRequest) -> None:
        if self._requests is not None:
            self._requests.put(request)

    def close(self) -> None:
        """End the stream; what nobody else wants is cancelled."""
        self._closing.set()
        with self._lock:
            requests, call = self._requests, self._call
            self._requests = None
        if requests is not None:
            # A build that has said all is let go at once; one that breaks off is waited for a while.
            requests.end()
            self._thread.join(END_SECONDS)
        if call is not None:
            call.cancel()
        self._thread.join(CONNECT_SECONDS)

    # in the thread

    def _run(self) -> None:
        try:
            self._listen_for_good()
        finally:
            self._opened.put(None)
            with self._lock:
                self.lost = True
                self.gave_up = not self._closing.is_set()
                watches = list(self._watches.values())
            for watch in watches:
                watch.tell(Lost())

    def _listen_for_good(self) -> None:
        broken_at = time.monotonic()
        first, pause = True, FIRST_PAUSE
        while not self._closing.is_set():
            opened, refused = self._listen(first=first)
            self.refused = self.refused or refused
            if opened:
                broken_at, first, pause = time.monotonic(), False, FIRST_PAUSE
            if first or refused:
                return
            if time.monotonic() - broken_at > self._lost_seconds:
                self._leave_alone()
                return
            # Builds that broke together should not come back together.
            self._closing.wait(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    def _leave_alone(self) -> None:
        """A server that has not answered for so long is not asked for anything else either: each call would wait for it
        anew, some 30 seconds if it was cut off without a word."""
        if not self._pulse.wait():
            self._client.caller.down = True

    def _listen(self, *, first: bool) -> tuple[bool, bool]:
        """One call, until it ends: whether it was answered, and whether it was refused."""
        requests = _Requests()
        requests.put(fleet_pb2.BuildRequest(open=self._opening))
        call = self._stub.Build(iter(requests), metadata=self._client.caller.metadata)
        with self._lock:
            self._call = call
        if self._closing.is_set():  # before there was a call to cancel
            call.cancel()
        patience = threading.Timer(CONNECT_SECONDS, call.cancel)
        patience.daemon = True
        patience.start()
        opened = False
        try:
            for event in call:
                if not opened and event.HasField("opened"):
                    if event.opened.version > VERSION:
                        self._warn(_newer(event.opened.version))
                        call.cancel()
                        return False, True
                    opened = True
                    patience.cancel()
                    self._begin(event.opened, requests, first=first)
                elif opened:
                    self._take(event)
        except grpc.RpcError as error:
            return opened, error.code() in REFUSALS
        except ValueError:
            return opened, True  # the channel was closed: the server is left alone
        finally:
            patience.cancel()
            requests.end()
            with self._lock:
                if self._requests is requests:
                    self._requests = None
        return opened, False

    def _begin(self, opened: fleet_pb2.BuildOpened, requests: _Requests, *, first: bool) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            watches = list(self._watches.values())
            self._requests = requests
            for key in sorted(self._taken_back):
                requests.put(fleet_pb2.BuildRequest(cancel=key))
            for watch in watches:
                requests.put(fleet_pb2.BuildRequest(execute=watch.request))
        self.had_workers = self.had_workers or opened.workers > 0
        # Answers come after it, by this thread; and whoever is told can speak by the new stream already.
        for watch in watches:
            watch.tell(Reopened())
        if first:
            self._opened.put(opened)

    def _take(self, event: fleet_pb2.BuildEvent) -> None:
        kind = event.WhichOneof("message")
        said = getattr(event, kind) if kind else None
        if said is None:
            return
        if kind == "opened":
            self.had_workers = self.had_workers or said.workers > 0
            return
        with self._lock:
            key = self._leases.get(said.lease, "") if kind == "sealed" else said.key
            watch = self._watches.get(key)
            if watch is not None and kind == "started":
                self._leases[said.lease] = key
        if watch is not None:
            watch.tell(event)
