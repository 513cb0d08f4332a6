"""Needs of: what an action asks of a worker, and why some actions stay on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.platform import Platform
from cache.store import MOUNTS
from worker.cache_mounts import mount_key
from worker.fleet.limits import UNKNOWN_SECONDS
from worker.operation import Run
from worker.run_mounts import not_given

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from buildgraph.v1 import fleet_pb2

    from compiler.fleet.placed_executor import Wish
    from compiler.graph import Graph
    from worker.action import Action, Order


def stays_here(operation: Run, store_directory: str, local_slots: int | None) -> str:
    """Why a RUN is no business of the fleet's, as a sentence; "" if it is."""
    if operation.insecure:
        return "it may do anything, which --allow grants on this machine only"
    if local_slots:
        # Somebody who lends this machine wants its caches used.
        for mount in operation.mounts:
            if mount.type == "cache" and os.path.isdir(os.path.join(store_directory, MOUNTS, mount_key(mount))):
                return "its cache mount is on this machine"
    return ""


def check_given(operation: Run, order: Order) -> None:
    """That the build was given the secrets and agents that a RUN cannot do without: no worker can help it otherwise.
    Raises EnvironmentProblem, as executing it here would."""
    given: Mapping[str, Container[str]] = {"secret": order.secrets, "ssh": order.agents}
    for mount in operation.mounts:
        if mount.required and mount.type in given and mount.id not in given[mount.type]:
            raise not_given(mount)


def needs_of(action: Action, wish: Wish, workers: Sequence[bytes] = ()) -> fleet_pb2.Needs:
    """action: with layers alone as inputs. workers: keys of those that may have it, none for any."""
    from buildgraph.v1 import fleet_pb2

    needs = fleet_pb2.Needs(
        platform=action.platform or str(Platform.here()), seconds=wish.seconds or 0.0, critical=wish.critical,
        memory=wish.memory, labels=wish.labels, workers=workers,
    )  # fmt: skip
    seen = set()
    for given in action.inputs:
        assert isinstance(given, tuple)
        for layer in given:
            if layer.diff_id not in seen:
                seen.add(layer.diff_id)
                needs.layers.add(diff_id=layer.diff_id, size=layer.tar.size if layer.tar is not None else 0)
    operation = action.operation
    assert isinstance(operation, Run)
    needs.caches.extend(sorted({mount_key(mount) for mount in operation.mounts if mount.type == "cache"}))
    return needs


def critical_paths(graph: Graph, expected: Mapping[str, float]) -> dict[str, float]:
    """Seconds from the start of each node to the end of the build, along the longest path. expected: medians; a RUN
    that nobody timed is taken to last as long as the scheduler takes it to."""
    after: dict[str, float] = {}
    found: dict[str, float] = {}
    for node in reversed(list(graph)):
        own = expected.get(node.id)
        if own is None:
            own = UNKNOWN_SECONDS if isinstance(node.definition, Run) else 0.0
        total = found[node.id] = own + after.get(node.id, 0.0)
        for name in node.inputs:
            after[name] = max(after.get(name, 0.0), total)
    return found
