"""Forecast: what a build would do, node by node, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.errors import BuildgraphError, DefinitionError
from compiler.graph import ROOTFS, Graph, ImageSource, Node
from compiler.needs import needed
from compiler.reasons import Explained, Reason, explain_miss
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.result import Layer, Result
    from compiler.keys import Keys
    from compiler.lookup import Lookup
    from compiler.options import BuildOptions
    from compiler.records import StepRecords
    from worker.library import LayerLibrary

HIT, MISS, DEPENDS = "hit", "miss", "depends"


class Outlook(NamedTuple):
    """What to expect of one node. status: hit, miss or depends. seconds: expected, 0 for a hit, None if unknown."""

    node: Node
    status: str
    why: Explained
    recipe_key: str
    result: Result | None
    seconds: float | None


class Forecast(NamedTuple):
    """outlooks: in the graph's order. results: those that the build would start with. critical_path: ids of steps
    that run one after the other and take longest. seconds: of that path, as far as known."""

    outlooks: tuple[Outlook, ...]
    results: dict[str, Result]
    critical_path: tuple[str, ...]
    seconds: float

    def count(self, status: str) -> int:
        """Steps with this status; sources and stages are not counted."""
        return sum(1 for outlook in self.outlooks if outlook.node.is_step and outlook.status == status)


class Forecaster:
    """Works out a Forecast; reads records and indexes, fetches and writes nothing."""

    def __init__(
        self,
        graph: Graph,
        keys: Keys,
        lookup: Lookup,
        records: StepRecords,
        library: LayerLibrary,
        options: BuildOptions,
    ) -> None:
        self._graph = graph
        self._keys = keys
        self._lookup = lookup
        self._records = records
        self._library = library
        self._options = options
        self._bottoms: dict[str, Node] = {}
        for node in graph:
            self._bottoms[node.id] = self._bottoms[node.inputs[ROOTFS]] if node.inputs else node

    def known(self) -> dict[str, Result]:
        """Node id → result for all steps whose recipe key is known, except where the user wants no cache.

        Nor above such a step: what it makes this time decides by its content.
        """
        anew: set[str] = set()
        for node in self._graph:
            if no_cache(node, self._options) or not anew.isdisjoint(node.inputs):
                anew.add(node.id)
        recipes = {node.id: self._keys.recipe(node.id) for node in self._graph if node.is_step}
        return {name: result for name, result in self._lookup.by_recipe(recipes).items() if name not in anew}

    def forecast(self) -> Forecast:
        results = self.known()
        expected = self._records.expected(self._graph)
        wanted = needed(self._graph, results)
        found: dict[str, Outlook] = {}
        for node in self._graph:
            found[node.id] = self._outlook(node, results, wanted, found, expected)
            result = found[node.id].result
            if result is not None:
                results[node.id] = result
        path, seconds = self._critical_path(found)
        return Forecast(tuple(found.values()), results, path, seconds)

    def _outlook(
        self,
        node: Node,
        results: dict[str, Result],
        wanted: set[str],
        found: Mapping[str, Outlook],
        expected: Mapping[str, float],
    ) -> Outlook:
        recipe = self._keys.recipe(node.id)
        if not node.is_step and not node.inputs:
            return Outlook(node, HIT, Explained(Reason.SOURCE, _source_text(node)), recipe, None, 0.0)
        if node.kind == "stage":
            base = found[node.inputs[ROOTFS]]
            why = base.why if base.status == HIT else Explained(Reason.INPUT_OPEN, f"it waits for {base.node.id}")
            return Outlook(node, HIT if base.status == HIT else DEPENDS, why, recipe, None, 0.0)
        known = results.get(node.id)
        if known is not None:
            why = Explained(Reason.SAME_RECIPE, f"made by {known.made_by}, took {known.seconds:.1f} s")
            return Outlook(node, HIT, why, recipe, known, 0.0)
        if node.id not in wanted:
            why = Explained(Reason.NOT_NEEDED, "not needed: what takes from it is cached")
            return Outlook(node, HIT, why, recipe, None, 0.0)
        seconds = expected.get(node.id)
        if no_cache(node, self._options):
            return Outlook(node, MISS, Explained(Reason.NO_CACHE, "runs because of --no-cache"), recipe, None, seconds)
        open_input = next((name for name in node.inputs if found[name].status != HIT), None)
        if open_input is not None:
            first = found[open_input]
            origin = first.node.inputs[ROOTFS] if first.node.kind == "stage" else first.node.id
            why = Explained(Reason.INPUT_OPEN, f"it waits for what {origin} makes")
            return Outlook(node, DEPENDS, why, recipe, None, seconds)
        same = self._by_content(node, results)
        if same is not None:
            why = Explained(Reason.SAME_CONTENT, "its inputs have the content that they had before")
            return Outlook(node, HIT, why, recipe, same, 0.0)
        why = explain_miss(self._keys.parts(node.id), self._records.last_parts(node))
        return Outlook(node, MISS, why, recipe, None, seconds)

    def _by_content(self, node: Node, results: Mapping[str, Result]) -> Result | None:
        plain_run = isinstance(node.definition, Run) and all(mount.input is None for mount in node.definition.mounts)
        if not plain_run and not self._listed(node):
            return None
        try:
            key = self._keys.content(node, lambda name: layers_of(self._graph, name, results), self._library)
        except DefinitionError:
            raise
        except BuildgraphError:
            return None
        return self._lookup.by_content(key)

    def _listed(self, node: Node) -> bool:
        """Whether all that the node builds on can be looked into without fetching anything."""
        for name in node.inputs:
            source = self._bottoms[name].definition
            if isinstance(source, ImageSource):
                for layer in source.layers:
                    listing = self._library.known(layer).listing
                    if listing is None or not self._library.store.has_blob(listing):
                        return False
        return True

    def _critical_path(self, found: Mapping[str, Outlook]) -> tuple[tuple[str, ...], float]:
        """The chain of steps to run that takes longest: along each node's inputs, the one that is done last."""
        done_at: dict[str, float] = {}
        before: dict[str, str] = {}
        for node in self._graph:
            latest = max(node.inputs, key=lambda name: done_at[name], default="")
            start = done_at[latest] if latest else 0.0
            outlook = found[node.id]
            runs = node.is_step and outlook.status != HIT
            done_at[node.id] = start + ((outlook.seconds or 0.0) + 1e-9 if runs else 0.0)
            before[node.id] = latest
        path = []
        name = self._graph.target
        while name:
            if found[name].node.is_step and found[name].status != HIT:
                path.append(name)
            name = before[name]
        return tuple(reversed(path)), done_at[self._graph.target]


def no_cache(node: Node, options: BuildOptions) -> bool:
    """Whether the user wants this step to run whatever is known."""
    return node.is_step and (options.no_cache or node.stage in options.no_cache_stages)


def layers_of(graph: Graph, name: str, results: Mapping[str, Result]) -> tuple[Layer, ...]:
    """The layers of a node's root filesystem, lowest first; all steps of its chain must have results."""
    layers: list[Layer] = []
    for node in graph.chain(name):
        if isinstance(node.definition, ImageSource):
            layers += node.definition.layers
        elif node.is_step:
            layer = results[node.id].layer
            if layer is not None:
                layers.append(layer)
    return tuple(layers)


def _source_text(node: Node) -> str:
    source = node.definition
    if isinstance(source, ImageSource):
        count = len(source.layers)
        layers = f"{count} {'layer' if count == 1 else 'layers'}"
        return f"{layers}, {source.digest[:19]}" if source.digest else layers
    return {"context": "the files of the context", "http": "fetched", "scratch": "nothing"}[node.kind]


