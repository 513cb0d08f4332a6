"""Write a planned COPY as a layer's tar, the files' bytes straight from where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.entry import FILE
from cache.layer_writer import LayerTar, LayerWriter

if TYPE_CHECKING:
    from worker.copy_plan import CopyPlan


def write_plan(plan: CopyPlan, tar_fd: int) -> LayerTar:
    """Every entry of the plan in order. Raises EnvironmentProblem, also for a file that changed since it was hashed."""
    writer = LayerWriter(tar_fd)
    for entry, tree, source, number in plan.entries():
        if entry.kind == FILE and tree is not None and source is not None:
            with tree.data(source, number) as data:
                writer.add_file(entry, data.fd, data.offset)
        else:
            writer.add(entry)
    return writer.finish()
