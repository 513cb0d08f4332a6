"""MountShelf: the newest snapshot of each cache mount, on the server."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from blake3 import blake3
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import remote_execution_pb2
from google.protobuf.message import DecodeError

from cache.remote.action_results import LISTING, TAR, digest_of
from cache.server.action_cache import find_results, keep_result
from worker.fleet.mount_layer import snapshot_layer
from worker.fleet.mount_limits import MOST_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.server.access import Caller
    from cache.server.core import Core


class MountShelf:
    """Kept like results, so that blobs stay as long as a snapshot that is used names them, and quotas count them. May
    be used by several threads at once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], pb.MountSnapshot] = OrderedDict()

    def keep(self, caller: Caller, namespace: str, snapshot: pb.MountSnapshot) -> None:
        """From now on this is the cache's; durable on return. It was checked before.

        Raises Refused if its blobs are not there, CorruptBlob, StoreProblem.
        """
        layer = snapshot_layer(snapshot)
        result = remote_execution_pb2.ActionResult()
        for path, blob in ((TAR, layer.tar), (LISTING, layer.listing)):
            result.output_files.add(path=path, digest=digest_of(str(blob)))
        result.execution_metadata.auxiliary_metadata.add().Pack(snapshot)
        keep_result(self._core, namespace, "blake3", _record(snapshot.cache), result, caller)
        self._note(namespace, snapshot.cache, snapshot)

    def load(self, namespace: str, caches: Iterable[str]) -> None:
        """Have `known` know them, as far as all of their blobs are there. They count as used. Raises StoreProblem."""
        records = {_record(cache): cache for cache in caches}
        if not records:
            return
        found = find_results(self._core.shelf, namespace, "blake3", tuple(records))
        for record, cache in records.items():
            self._note(namespace, cache, _snapshot(found[record]) if record in found else None)

    def known(self, namespace: str, caches: Iterable[str]) -> list[pb.MountSnapshot]:
        """Those that were loaded or kept, without a look at the store."""
        with self._lock:
            found = [self._known.get((namespace, cache)) for cache in caches]
        return [snapshot for snapshot in found if snapshot is not None]

    def _note(self, namespace: str, cache: str, snapshot: pb.MountSnapshot | None) -> None:
        with self._lock:
            self._known.pop((namespace, cache), None)
            if snapshot is not None:
                self._known[namespace, cache] = snapshot
                if len(self._known) > MOST_KNOWN:
                    self._known.popitem(last=False)


def _record(cache: str) -> str:
    """The record's name among those of actions. It is no digest: no call that names an action by its digest reads it,
    or writes one that would pass for it."""
    return f"mount/{blake3(cache.encode()).hexdigest()}"


def _snapshot(data: bytes) -> pb.MountSnapshot | None:
    result, snapshot = remote_execution_pb2.ActionResult.FromString(data), pb.MountSnapshot()
    with contextlib.suppress(DecodeError):
        if any(each.Unpack(snapshot) for each in result.execution_metadata.auxiliary_metadata):
            return snapshot
    return None
