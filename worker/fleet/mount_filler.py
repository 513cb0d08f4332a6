"""MountFiller: begins cache mounts of a worker with what they held on another one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cache.errors import CorruptBlob, StoreProblem
from cache.size_text import bytes_text
from worker.action import Cancelled
from worker.cache_mounts import in_namespace, mount_key
from worker.fleet.identity import fingerprint, verify
from worker.fleet.mount_layer import snapshot_layer
from worker.fleet.signed_texts import mount_text
from worker.mount_snapshot import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from buildgraph.v1 import fleet_pb2 as pb

    from worker.fleet.hot_layers import HotLayers
    from worker.fleet.inputs import Inputs
    from worker.library import LayerLibrary
    from worker.operation import Mount

NUL = "\0"


class MountFiller:
    """May be used by several threads at once."""

    def __init__(self, library: LayerLibrary, hot: HotLayers, inputs: Inputs, say: Callable[[str], None]) -> None:
        """say: writes a line for people."""
        self._library = library
        self._hot = hot
        self._inputs = inputs
        self._say = say

    def warmer(
        self,
        namespace: str,
        snapshots: Iterable[pb.MountSnapshot],
        cancelled: Callable[[], bool],
        shown: Callable[[str], str],
    ) -> Callable[[Mount, str], bool]:
        """What an order's `warm` is for a lease that came with these snapshots. shown: a text without secrets."""
        known = {in_namespace(namespace, each.cache): each for each in snapshots}

        def warm(mount: Mount, directory: str) -> bool:
            snapshot = known.get(mount_key(mount))
            if snapshot is None:
                return False
            title = f"the cache mount {shown(mount.id.rpartition(NUL)[2].removeprefix('/'))!r}"
            try:
                size = self._unpack(namespace, snapshot, mount, directory, cancelled)
            except Cancelled:
                raise
            except Exception as error:  # noqa: BLE001, whatever it is: the step only takes longer
                text = getattr(error, "message", "") or str(error)
                self._say(f"{title} begins without its snapshot: {text}")
                return False
            self._say(f"{title} begins with {bytes_text(size)} of {fingerprint(snapshot.worker_key)}")
            return True

        return warm

    def _unpack(
        self, namespace: str, snapshot: pb.MountSnapshot, mount: Mount, directory: str, cancelled: Callable[[], bool]
    ) -> int:
        """Bytes of the snapshot. Raises CorruptBlob and others, Cancelled."""
        if not verify(snapshot.worker_key, snapshot.signature, mount_text(namespace, snapshot)):
            raise CorruptBlob("it is not signed by the worker that it names")
        layer = snapshot_layer(snapshot)
        self._hot.hold([layer.diff_id])
        try:
            [known] = self._inputs.bring(namespace, (layer,), cancelled)
            unpack(self._library.index(known), self._library.open_tar(known), directory, mount)
        finally:
            self._hot.let_go([layer.diff_id])
        with contextlib.suppress(StoreProblem):  # the mount has all of it
            self._hot.drop(layer.diff_id)
        assert known.tar is not None
        return known.tar.size
