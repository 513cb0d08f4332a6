"""Why: what decided about one step: in the build that was last, and in the one that would come next."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from cache.build_record import newest_builds
from compiler.explain import explain
from compiler.reasons import Explained, Reason

if TYPE_CHECKING:
    from cache.build_record import BuildRecord, NodeRecord
    from cache.store import Store
    from compiler.records import StepRecords

SEARCHED = 500
"""Builds that are looked through for a step's last miss, newest first."""


class Miss(NamedTuple):
    """A build in which a step was not found, and why."""

    build: BuildRecord
    node: NodeRecord
    why: Explained


def last_miss(store: Store, records: StepRecords, node_id: str) -> Miss | None:
    """The newest build of this file in which the step ran, or failed; None if none is remembered."""
    for build in islice(newest_builds(store), SEARCHED):
        node = build.node(node_id) if build.file == records.file else None
        if node is not None and node.status in ("ran", "failed"):
            return Miss(build, node, explain_recorded(records, node))
    return None


def explain_recorded(records: StepRecords, node: NodeRecord) -> Explained:
    """Why a step of an earlier build had the status that it had."""
    if node.reason:
        reason = Reason(node.reason) if node.reason in {each.value for each in Reason} else Reason.GONE
        never = "no earlier build of this step was known"
        return Explained(reason, node.note or (never if reason is Reason.NEVER_BUILT else reason.value))
    now = records.earlier(node.recipe)
    if now is None:
        return Explained(Reason.GONE, "what its key was made of is no longer in the store")
    return explain(now, records.earlier(node.before), records)
