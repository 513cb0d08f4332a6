"""Server: one gRPC server with all services over one store."""

from __future__ import annotations

from concurrent import futures
from typing import TYPE_CHECKING, Protocol

import grpc
from buildgraph.v1 import (
    bytestream_pb2,
    bytestream_pb2_grpc,
    remote_execution_pb2,
    remote_execution_pb2_grpc,
    team_pb2,
    team_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cache.errors import EnvironmentProblem
from cache.server.action_cache import ActionCache
from cache.server.arrival import Arrival
from cache.server.byte_stream import ByteStream
from cache.server.capabilities import Capabilities
from cache.server.chunk_index import ChunkIndex
from cache.server.content_addressable import ContentAddressableStorage
from cache.server.core import Core
from cache.server.door import Door
from cache.server.limits import HANDSHAKE_SECONDS, IDLE_SECONDS, MAX_CALLS, MAX_MESSAGE, THREADS
from cache.server.lookups import Lookups
from cache.server.meter import NoMeter
from cache.server.shelf import Shelf
from cache.server.team import Team
from cache.server.uploads import Uploads
from cache.server.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cache.lmdb_store import LmdbStore
    from cache.server.access import Guard
    from cache.server.meter import Meter
    from cache.server.refusal import Refused

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two servers on one port would share its callers by chance
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # Writing 1 GB takes a fifth less of a core than with frames of 16 KiB.
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.max_metadata_size", 16 << 10),  # a token has 100 bytes
    ("grpc.max_concurrent_streams", 256),  # of one connection
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
    ("grpc.keepalive_time_ms", 60_000),  # a client that vanished without a word holds nothing for longer
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients may ask as often whether we live
    ("grpc.http2.max_ping_strikes", 5),
)
SERVICES = (
    *remote_execution_pb2.DESCRIPTOR.services_by_name.values(),
    *bytestream_pb2.DESCRIPTOR.services_by_name.values(),
    *team_pb2.DESCRIPTOR.services_by_name.values(),
)


class Further(Protocol):
    """Services beside those of the cache."""

    @property
    def names(self) -> Sequence[str]:
        """Theirs, with the package."""
        ...

    @property
    def pools(self) -> Mapping[str, futures.ThreadPoolExecutor]:
        """Threads of methods whose calls last long, by `/SERVICE/METHOD`."""
        ...

    @property
    def calls(self) -> int:
        """How many such calls there may be at the same time."""
        ...

    def add(self, server: grpc.Server, core: Core) -> None:
        """Before the server starts."""
        ...

    def stop(self) -> None:
        """End all of its calls, and refuse new ones: the server is about to stop."""
        ...


class Server:
    """Serves from `start` until `stop`. core: what its services work with, for metrics and clean-ups."""

    def __init__(
        self,
        store: LmdbStore,
        listen: str,
        guard: Guard,
        *,
        credentials: grpc.ServerCredentials | None = None,
        meter: Meter | None = None,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
        turned_away: Callable[[str, grpc.ServicerContext, Refused], None] = lambda *_: None,
        reflection: bool = False,
        idle_seconds: float = IDLE_SECONDS,
        further: Further | None = None,
    ) -> None:
        """listen: `HOST:PORT`, port 0 for any. credentials: for TLS. turned_away: is told the method and why, of
        calls that never reach the interceptors. The store stays the caller's.

        Raises EnvironmentProblem if it cannot listen there, StoreProblem.
        """
        shelf = Shelf(store, guard.take_over)
        uploads = Uploads(shelf)
        watchdog = Watchdog(idle_seconds, uploads.sweep)
        self.core = Core(shelf, ChunkIndex(shelf), uploads, guard, Lookups(meter or NoMeter()), watchdog)
        self._further = further
        self._pool = futures.ThreadPoolExecutor(THREADS, thread_name_prefix="grpc")
        door = Door(guard, turned_away, further.pools if further else None)
        self._grpc = grpc.server(
            self._pool,
            interceptors=[door, Arrival(watchdog), *interceptors],
            options=_OPTIONS,
            maximum_concurrent_rpcs=MAX_CALLS + (further.calls if further else 0),
        )
        self._health = health.HealthServicer()
        self._add_services(reflection)
        self.port = self._listen(listen, credentials)

    def _add_services(self, reflection: bool) -> None:
        server, core = self._grpc, self.core
        remote_execution_pb2_grpc.add_CapabilitiesServicer_to_server(Capabilities(core), server)
        storage = ContentAddressableStorage(core)
        remote_execution_pb2_grpc.add_ContentAddressableStorageServicer_to_server(storage, server)
        remote_execution_pb2_grpc.add_ActionCacheServicer_to_server(ActionCache(core), server)
        bytestream_pb2_grpc.add_ByteStreamServicer_to_server(ByteStream(core), server)
        team_pb2_grpc.add_TeamServicer_to_server(Team(core), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._further is not None:
            self._further.add(server, core)
        if reflection:
            from grpc_reflection.v1alpha import reflection as reflecting

            names = self._names()
            reflecting.enable_server_reflection(
                (*names, health.SERVICE_NAME, reflecting.SERVICE_NAME), server
            )

    def _listen(self, listen: str, credentials: grpc.ServerCredentials | None) -> int:
        try:
            if credentials is None:
                port = self._grpc.add_insecure_port(listen)
            else:
                port = self._grpc.add_secure_port(listen, credentials)
        except RuntimeError:
            port = 0
        if not port:
            hint = "choose another with --listen HOST:PORT; perhaps a server runs there already"
            raise EnvironmentProblem(f"cannot listen on {listen}", hint=hint)
        return port

    def start(self) -> None:
        self.core.shelf.store.start_writer()
        self.core.watchdog.start()
        self._grpc.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def drain(self) -> None:
        """Say that it will stop, so that balancers send nobody any more."""
        self._health.enter_graceful_shutdown()

    def stop(self, grace: float) -> None:
        """Take no new calls, wait up to so many seconds for those that run, and end."""
        self.drain()
        if self._further is not None:
            self._further.stop()
        self._grpc.stop(grace).wait()
        self.core.watchdog.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.core.uploads.close()

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *self._names()):
            self._health.set(name, status)

    def _names(self) -> tuple[str, ...]:
        return *(service.full_name for service in SERVICES), *(self._further.names if self._further else ())
