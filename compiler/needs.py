"""Needs: which nodes a build must have results of, given those that it has already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.graph import ROOTFS

if TYPE_CHECKING:
    from collections.abc import Container

    from compiler.graph import Graph


def needed(graph: Graph, known: Container[str]) -> set[str]:
    """Ids of the nodes whose results the target cannot do without.

    The layers of the target's whole chain are needed. Of a step that is known nothing else is; one that must run needs
    all its inputs. So a stage that was only copied from is not needed as long as the copies are known.
    """
    wanted: set[str] = set()
    pending = [graph.target]
    while pending:
        node = graph[pending.pop()]
        if node.id in wanted:
            continue
        wanted.add(node.id)
        if node.is_step and node.id in known:
            pending.append(node.inputs[ROOTFS])
        else:
            pending += node.inputs
    return wanted
