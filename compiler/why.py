"""Why: what decided about one step: in the build that was last, and in the one that would come next."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from cache.build_record import newest_builds
from compiler.explain import NEVER_BUILT, explain, explain_forgotten
from compiler.forecast import MISS
from compiler.reasons import Explained, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.build_record import BuildRecord, NodeRecord
    from cache.store import Store
    from compiler.forecast import Outlook
    from compiler.graph import Node
    from compiler.records import StepRecords
    from compiler.session import Session

NEVER_THEN = "no earlier build of this step was known"
SEARCHED = 500
"""Builds that are looked through for a step's last miss, newest first."""


class Miss(NamedTuple):
    """A build in which a step was not found, and why."""

    build: BuildRecord
    node: NodeRecord
    why: Explained


class Last(NamedTuple):
    """The newest build of a file, and what became of a step in it; None if it did not come to that step."""

    build: BuildRecord
    node: NodeRecord | None


def last_build(store: Store, records: StepRecords, node_id: str) -> Last | None:
    """None if no build of this file is remembered."""
    build = next((each for each in newest_builds(store) if each.file == records.file), None)
    return None if build is None else Last(build, build.node(node_id))


def last_miss(store: Store, records: StepRecords, node_id: str) -> Miss | None:
    """The newest build of this file in which the step ran, or failed; None if none is remembered."""
    for build in islice(newest_builds(store), SEARCHED):
        node = build.node(node_id) if build.file == records.file else None
        if node is not None and node.status in ("ran", "failed"):
            return Miss(build, node, explain_recorded(store, records, node))
    return None


def explain_recorded(store: Store, records: StepRecords, node: NodeRecord) -> Explained:
    """Why a step of an earlier build had the status that it had."""
    if node.reason:
        reason = Reason(node.reason) if node.reason in {each.value for each in Reason} else Reason.GONE
        return Explained(reason, node.note or (NEVER_THEN if reason is Reason.NEVER_BUILT else reason.value))
    now = records.earlier(node.recipe)
    if now is None:
        return Explained(Reason.GONE, "what its key was made of is no longer in the store")
    earlier = records.earlier(node.before)
    found = explain_forgotten(store, "") if earlier is None else explain(now, earlier, records)
    return found._replace(text=found.text.replace(NEVER_BUILT, NEVER_THEN))


def behind(session: Session, outlooks: Mapping[str, Outlook], node: Node) -> Explained:
    """What has a step wait, or have its result be made anew by another one: what is different from its nearest earlier
    build; if nothing is, what the first step below that surely runs says of itself, with its name."""
    before = session.records.before(node)
    if before and before == session.keys.recipe(node.id):
        for name in _below(session, node):
            outlook = outlooks[name]
            if outlook.status == MISS:
                return outlook.why._replace(text=f"{name} runs: {outlook.why.text}")
    return session.explain(node)


def _below(session: Session, node: Node) -> list[str]:
    """What a step is made of, the nearest first."""
    found = dict.fromkeys(node.inputs)
    for name in (waiting := list(found)):
        new = [each for each in session.graph[name].inputs if each not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return list(found)
