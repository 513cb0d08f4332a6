"""PlannedWorld: today's graph in front of what the store remembers of earlier ones, for explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.graph import Graph, ImageSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiler.keys import Keys
    from compiler.preimage import Preimage
    from compiler.records import StepRecords
    from worker.file_list import Listed


class PlannedWorld:
    """A `World` of today's graph, and of what the store remembers of earlier ones."""

    def __init__(self, graph: Graph, keys: Keys, records: StepRecords) -> None:
        self._records = records
        self._keys = keys
        self._graph = graph
        self._by_filesystem = {keys.filesystem(node.id): node for node in graph if node.kind != "stage"}
        self._listings: dict[str, Callable[[], list[Listed] | None]] | None = None

    def earlier(self, recipe: str) -> Preimage | None:
        node = self._by_filesystem.get(recipe)
        if node is not None and node.is_step:
            return self._records.filesystem_preimage(node)
        if node is not None and isinstance(node.definition, ImageSource):
            return self._records.image_preimage(node)
        return self._records.earlier(recipe)

    def files(self, source: str) -> list[Listed] | None:
        if self._listings is None:
            steps = [node for node in self._graph if node.is_step]
            self._listings = {digest: ask for node in steps for digest, ask in self._keys.files(node).items()}
        listing = self._listings.get(source)
        return self._records.files(source) if listing is None else listing()
