"""FleetService: the scheduler as two services of one gRPC server."""

from __future__ import annotations

import os
import time
from concurrent import futures
from typing import TYPE_CHECKING, Protocol

import grpc
from buildgraph.v1 import fleet_pb2, fleet_pb2_grpc

from cache.server.refusal import answered, answered_stream
from worker.fleet.build_stream import BuildStream
from worker.fleet.cordons import Cordons
from worker.fleet.desk import Desk
from worker.fleet.gate import Gate
from worker.fleet.lease_proofs import LeaseProofs
from worker.fleet.log_buffer import LogSpace
from worker.fleet.mount_shelf import MountShelf
from worker.fleet.results import Results
from worker.fleet.service_limits import AWAY_SECONDS, STREAMS
from worker.fleet.settling import Settling
from worker.fleet.ticking import Ticking
from worker.fleet.watching import Watching
from worker.fleet.worker_stream import WorkerStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from buildgraph.v1 import fleet_pb2 as pb

    from cache.server.core import Core
    from worker.fleet.desk import Say
    from worker.fleet.parties import WorkerParty

STOPPING = "the server stops; try again in a moment"


class Figures(Protocol):
    """Keeps metrics: what `cache.server.metrics.Metrics` can do of it."""

    def figure(self, name: str, text: str, read: Callable[[], float]) -> None: ...

    def times(self, name: str, text: str) -> Callable[[float], None]: ...


class FleetService:
    """Further services of a server. Runs from `add`, which the server calls, to `stop`."""

    names = tuple(service.full_name for service in fleet_pb2.DESCRIPTOR.services_by_name.values())
    calls = STREAMS

    def __init__(
        self,
        say: Say,
        figures: Figures | None = None,
        *,
        away_seconds: float = AWAY_SECONDS,
        shares_mounts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """say: writes lines of the journal. away_seconds: how long a build whose stream broke may be away.
        shares_mounts: whether workers get snapshots of each other's cache mounts. clock: seconds, never back."""
        self._clock = clock
        self._say = say
        self._figures = figures
        self._away_seconds = away_seconds
        self._shares_mounts = shares_mounts
        self._pool = futures.ThreadPoolExecutor(STREAMS, thread_name_prefix="fleet")
        self.pools = {
            f"/{self.names[0]}/Build": self._pool,
            f"/{self.names[0]}/Watch": self._pool,
            f"/{self.names[1]}/Work": self._pool,
        }

    def add(self, server: grpc.Server, core: Core) -> None:
        """Raises StoreProblem."""
        store = core.shelf.store
        space = LogSpace(os.path.dirname(store.scratch("log")))
        self.desk = Desk(self._say, space, LeaseProofs.kept_in(store), self._clock)
        self.desk.mounts = MountShelf(core) if self._shares_mounts else None
        self._gate = Gate(core.guard)
        results = Results(core)
        cordons = Cordons(self.desk, store)
        self._watching = Watching(self.desk, self._gate, cordons, core.meter)
        self._ticking = Ticking(self.desk, self._gate, self._away_seconds)
        fleet = _Fleet(self.desk, results, self._gate, self._watching)
        fleet_pb2_grpc.add_FleetServicer_to_server(fleet, server)
        workers = _FleetWorkers(self.desk, Settling(self.desk, results), self._gate, cordons)
        fleet_pb2_grpc.add_FleetWorkersServicer_to_server(workers, server)
        if self._figures is not None:
            self._count(self._figures)
        self._ticking.start()

    def _count(self, figures: Figures) -> None:
        desk = self.desk
        figures.figure("buildgraph_fleet_workers", "Workers that are there.", lambda: len(self._there()))
        figures.figure("buildgraph_fleet_slots", "What they can execute at the same time.", self._slots)
        figures.figure("buildgraph_fleet_leases", "Leases that are held: slots in use.", lambda: len(desk.leases))
        figures.figure("buildgraph_fleet_builds", "Builds that are open.", lambda: len(desk.builds))
        figures.figure("buildgraph_fleet_queue", "Actions that wait for a worker.", self._queue)
        desk.seconds = figures.times("buildgraph_fleet_decision_seconds", "What the scheduler's decisions took.")

    def _there(self) -> list[WorkerParty]:
        with self.desk.lock:
            return [worker for worker in self.desk.workers.values() if worker.left is None]

    def _slots(self) -> float:
        return sum(worker.hello.slots for worker in self._there())

    def _queue(self) -> float:
        with self.desk.lock:
            return self.desk.scheduler.snapshot().queue_length

    def state(self, sees: Callable[[str], bool]) -> pb.FleetState:
        """The fleet now, once `add` was called. sees: whether what is done in a namespace is to be shown."""
        return self._watching.state(sees)

    def stop(self) -> None:
        """End all streams; their other ends come again when the server is back."""
        with self.desk.lock:
            self.desk.closed = True
        self._gate.end_all(grpc.StatusCode.UNAVAILABLE, STOPPING)
        self._ticking.stop()
        self._pool.shutdown(wait=False)


class _Fleet(fleet_pb2_grpc.FleetServicer):
    """What builds and people ask."""

    def __init__(self, desk: Desk, results: Results, gate: Gate, watching: Watching) -> None:
        self._desk = desk
        self._results = results
        self._gate = gate
        self._watching = watching

    @answered_stream
    def Build(self, requests: Iterator[pb.BuildRequest], context: grpc.ServicerContext) -> Iterator[pb.BuildEvent]:  # noqa: N802
        yield from BuildStream(self._desk, self._results, self._gate, context).run(requests)

    @answered_stream
    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.FleetState]:  # noqa: N802
        yield from self._watching.watch(request.once, context)

    @answered
    def Explain(self, request: pb.ExplainRequest, context: grpc.ServicerContext) -> pb.ExplainResponse:  # noqa: N802
        return self._watching.explain(request, context)

    @answered
    def Cordon(self, request: pb.CordonRequest, context: grpc.ServicerContext) -> pb.CordonResponse:  # noqa: N802
        return self._watching.cordon(request, context)


class _FleetWorkers(fleet_pb2_grpc.FleetWorkersServicer):
    """For workers."""

    def __init__(self, desk: Desk, settling: Settling, gate: Gate, cordons: Cordons) -> None:
        self._desk = desk
        self._settling = settling
        self._gate = gate
        self._cordons = cordons

    @answered_stream
    def Work(  # noqa: N802
        self, requests: Iterator[pb.WorkerMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.SchedulerMessage]:
        yield from WorkerStream(self._desk, self._settling, self._gate, self._cordons, context).run(requests)
