"""Taking a snapshot of a cache mount from the worker that published it, or not, with the reason."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache.server.refusal import refusal_of
from worker.fleet.identity import verify
from worker.fleet.mount_limits import MAX_AHEAD, MAX_MESSAGE
from worker.fleet.rights import may_take
from worker.fleet.signed_texts import mount_text

if TYPE_CHECKING:
    from buildgraph.v1 import fleet_pb2 as pb

    from worker.fleet.desk import Desk
    from worker.fleet.parties import WorkerParty


def take_mount(desk: Desk, worker: WorkerParty, published: pb.WorkerMessage.MountPublished) -> None:
    """Never raises for what the worker did wrong."""
    namespace, snapshot = published.instance_name, published.snapshot
    with desk.lock:
        text = _wrong(desk, worker, namespace, snapshot)
    if not text and desk.mounts is not None:
        try:
            desk.mounts.keep(worker.caller, namespace, snapshot)
        except Exception as error:  # noqa: BLE001, the cache goes on without it whatever is wrong
            text = refusal_of(error).text
    event = "snapshot refused" if text else "snapshot kept"
    desk.say(event, worker=worker.name, namespace=namespace, cache=snapshot.cache[:64], text=text or None)


def _wrong(desk: Desk, worker: WorkerParty, namespace: str, snapshot: pb.MountSnapshot) -> str:
    """Why it is not taken; "" if it is."""
    if desk.mounts is None:
        return "cache mounts are not shared"
    if snapshot.ByteSize() > MAX_MESSAGE:
        return "the snapshot says too much"
    if desk.workers.get(worker.name) is not worker or not may_take(worker.caller, namespace):
        return "the worker may not execute in this namespace, or not any more"
    if (namespace, snapshot.cache) not in worker.mounts:
        return "since it joined the worker had no lease with this cache"
    if snapshot.worker_key != worker.hello.key:
        return "the snapshot shows another key than the worker's"
    if not 0 < snapshot.made_at_ms < (time.time() + MAX_AHEAD) * 1000:
        return "the snapshot was made at no time that has been"
    signed = verify(worker.hello.key, snapshot.signature, mount_text(namespace, snapshot))
    return "" if signed else "the snapshot is not signed by the worker's key"
