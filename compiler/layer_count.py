"""LayerCount: how many layers the steps of a graph stand on, so that too many are refused before any is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.dockerfile.errors import DockerfileError
from compiler.graph import ROOTFS, Graph, ImageSource, Node

if TYPE_CHECKING:
    from compiler.dockerfile.source import Span

SURELY_MOUNTABLE = 127
"""Layers that docker itself allows; up to that nobody needs to ask what a RUN can have mounted."""


class LayerCount:
    """Counts the layers that will certainly be there: what a RUN or WORKDIR leaves may be nothing."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, int] = {}

    def note(self, node: Node, span: Span) -> None:
        """A step or stage whose inputs were noted. Raises DockerfileError for a RUN on more than can be mounted."""
        below = self._graph[node.inputs[ROOTFS]]
        layers = len(below.definition.layers) if isinstance(below.definition, ImageSource) else 0
        count = self._known.get(below.id, layers)
        if node.kind == "run" and count > SURELY_MOUNTABLE:
            from worker.run import (
                MAX_LAYERS,  # with all that executes a step, which a build with nothing to do is without
            )

            if count > MAX_LAYERS:
                raise DockerfileError(
                    f"this RUN stands on {count} layers, and no more than {MAX_LAYERS} can be mounted",
                    span,
                    hint="copy more with each COPY, or copy from one stage that has it all",
                )
        self._known[node.id] = count + (node.kind in ("copy", "add"))
