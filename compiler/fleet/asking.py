"""Asking a scheduler about its fleet, and telling it which workers are to rest."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import grpc
from buildgraph.v1 import fleet_pb2, fleet_pb2_grpc

from cache.errors import RemoteError
from cache.remote.client import Client
from cache.remote.trouble import Unsupported, trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cache.remote_settings import RemoteSettings

VERSION = 1
"""Of the JSON; goes up when a field changes its meaning or disappears."""


class FleetClient:
    """One server. All methods raise RemoteError."""

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        self._client = Client(settings)
        self._stub = fleet_pb2_grpc.FleetStub(self._client.caller.channel)

    def states(self, *, once: bool) -> Iterator[fleet_pb2.FleetState]:
        """The fleet as it is, and again whenever that changes."""
        request = fleet_pb2.WatchRequest(once=once)
        try:
            yield from self._stub.Watch(request, metadata=self._client.caller.metadata)
        except grpc.RpcError as error:
            raise self._trouble(error) from None

    def live_states(self, seconds: float) -> Iterator[fleet_pb2.FleetState | None]:
        """The same, and None whenever that many seconds passed without one."""
        came: queue.SimpleQueue[fleet_pb2.FleetState | RemoteError | None] = queue.SimpleQueue()

        def read() -> None:
            try:
                for state in self.states(once=False):
                    came.put(state)
                came.put(None)
            except RemoteError as error:
                came.put(error)

        threading.Thread(target=read, name="fleet-states", daemon=True).start()
        while True:
            try:
                state = came.get(timeout=seconds)
            except queue.Empty:
                yield None
                continue
            if isinstance(state, RemoteError):
                raise state
            if state is None:
                return
            yield state

    def explain(self, action: str) -> fleet_pb2.ExplainResponse:
        """What was decided about an action of ours. action: its content key, or the beginning of that."""
        namespaces = [self._settings.write, *self._settings.reads]
        failure: RemoteError | None = None
        for namespace in dict.fromkeys(name for name in namespaces if name is not None):
            request = fleet_pb2.ExplainRequest(action=action, instance_name=namespace)
            try:
                return self._call(self._stub.Explain, request)  # type: ignore[no-any-return]
            except RemoteError as error:
                failure = failure or error
        raise failure or RemoteError("there is no namespace to ask about")

    def cordon(self, worker: str, *, off: bool) -> None:
        self._call(self._stub.Cordon, fleet_pb2.CordonRequest(worker=worker, off=off))

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return self._client.caller.call(method, request)
        except Unsupported as error:
            raise self._no_fleet(error) from None

    def _trouble(self, error: grpc.RpcError) -> RemoteError:
        found = trouble(error, self._settings)
        return self._no_fleet(found) if isinstance(found, Unsupported) else found

    def _no_fleet(self, error: RemoteError) -> RemoteError:
        del error
        return RemoteError(f"the remote {self._settings.origin} has no scheduler", hint="it may be an older server")

    def close(self) -> None:
        self._client.close()


def state_json(state: fleet_pb2.FleetState) -> dict[str, Any]:
    """For programs."""
    from worker.fleet.identity import fingerprint

    return {
        "version": VERSION,
        "at": round(state.at, 3),
        "workers": [
            {
                "name": each.name, "state": each.state, "version": each.version, "slots": each.slots,
                "busy": each.busy, "memory": each.memory, "platforms": list(each.platforms),
                "features": list(each.features), "labels": dict(sorted(each.labels.items())),
                "done": each.done, "failed": each.failed,
                "since": round(each.since, 3), "warm": round(each.warm, 4),
                "key": fingerprint(each.key) if each.key else "",
            }
            for each in state.workers
        ],
        "running": [_action(each) for each in state.running],
        "queued": [_action(each) for each in state.queued],
        "queue_length": state.queue_length,
        "lookups": state.lookups,
        "hits": state.hits,
        "builds": [
            {
                "build": each.build, "person": each.person, "project": each.project, "running": each.running,
                "queued": each.queued, "done": each.done, "since": round(each.since, 3),
            }
            for each in state.builds
        ],
    }  # fmt: skip


def aged(state: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What `state_json` made, so many seconds later, if nothing has happened."""
    found = {**state, "at": state["at"] + seconds}
    for kind in ("running", "queued"):
        found[kind] = [{**each, "seconds": each["seconds"] + seconds} for each in state[kind]]
    return found


def _action(each: fleet_pb2.ActionState) -> dict[str, Any]:
    return {
        "key": each.key, "text": each.text, "worker": each.worker, "seconds": round(each.seconds, 3),
        "expected": round(each.expected, 3), "reason": each.reason, "builds": list(each.builds),
    }  # fmt: skip


def explained_json(found: fleet_pb2.ExplainResponse) -> dict[str, Any]:
    """The same of decisions."""
    decisions = [
        {"at": round(each.at, 3), "reason": each.reason, "text": each.text, "worker": each.worker}
        for each in found.decisions
    ]
    return {"version": VERSION, "key": found.key, "text": found.text, "decisions": decisions}
