"""Why: what decided about one step: in the build that was last, and in the one that would come next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.build_record import BuildRecord
from compiler.explain import explain
from compiler.preimage import read_preimage
from compiler.reasons import Explained, Reason

if TYPE_CHECKING:
    from cache.build_record import NodeRecord
    from cache.store import Store
    from compiler.preimage import Preimage
    from compiler.records import StepRecords
    from worker.file_list import Listed

SEARCHED = 500
"""Builds that are looked through for a step's last miss, newest first."""


class Miss(NamedTuple):
    """A build in which a step was not found, and why."""

    build: BuildRecord
    node: NodeRecord
    why: Explained


class RecordedWorld:
    """A `World` of what the store remembers, and of nothing else."""

    def __init__(self, store: Store, records: StepRecords) -> None:
        self._store = store
        self._records = records

    def preimage(self, recipe: str) -> Preimage | None:
        return read_preimage(self._store, recipe)

    def files(self, source: str) -> list[Listed] | None:
        return self._records.files(source)


def last_miss(store: Store, records: StepRecords, node_id: str) -> Miss | None:
    """The newest build of this file in which the step ran, or failed; None if none is remembered."""
    for key, record in reversed(store.scan("builds")[-SEARCHED:]):
        build = BuildRecord.parse(key, record)
        node = build.node(node_id) if build is not None and build.file == records.file else None
        if build is not None and node is not None and node.status in ("ran", "failed"):
            return Miss(build, node, explain_recorded(store, records, node))
    return None


def explain_recorded(store: Store, records: StepRecords, node: NodeRecord) -> Explained:
    """Why a step of an earlier build had the status that it had."""
    if node.reason:
        reason = Reason(node.reason) if node.reason in {each.value for each in Reason} else Reason.GONE
        never = "no earlier build of this step was known"
        return Explained(reason, node.note or (never if reason is Reason.NEVER_BUILT else reason.value))
    world = RecordedWorld(store, records)
    now = world.preimage(node.recipe)
    if now is None:
        return Explained(Reason.GONE, "what its key was made of is no longer in the store")
    return explain(now, world.preimage(node.before), world)
