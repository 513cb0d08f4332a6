"""Adopting: which action of a build it is that a worker executes since before the scheduler's restart.

Workers say it by its key alone, and builds ask for it again with what they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.fleet.desk import action_id

if TYPE_CHECKING:
    from worker.fleet.desk import Desk
    from worker.fleet.incoming import Execute, Hello
    from worker.fleet.parties import BuildParty


def id_for_held(desk: Desk, namespace: str, key: str, worker: Hello) -> str:
    """The action that a worker's lease of this key is taken for: one that a build waits for and the worker may make.
    The desk's lock is held."""
    for build in desk.builds.values():
        name = build.names.get(key, "") if build.namespace == namespace else ""
        execute = build.wants.get(name)
        if execute is not None and not execute.anew and _may_make(worker, execute):
            return name
    return action_id(namespace, key)


def id_for_build(desk: Desk, build: BuildParty, execute: Execute, otherwise: str) -> str:
    """The action that a build gets which asks: its own if it asked before, or one that was adopted and is executed by
    workers that may make it, or `otherwise`. The desk's lock is held."""
    known = desk.actions.get(build.names.get(execute.order.key, ""))
    if known is not None and build.id in known.builds:
        return known.id
    adopted = desk.actions.get(action_id(build.namespace, execute.order.key))
    if execute.anew or adopted is None or adopted.builds or not adopted.leases:
        return otherwise
    workers = [desk.workers.get(lease.worker) for lease in adopted.leases.values()]
    fits = all(worker is not None and _may_make(worker.hello, execute) for worker in workers)
    return adopted.id if fits else otherwise


def _may_make(worker: Hello, execute: Execute) -> bool:
    needs = execute.needs
    return (not needs.workers or worker.key in needs.workers) and needs.labels.items() <= worker.labels.items()
