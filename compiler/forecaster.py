"""Forecaster: works out, node by node, what a build would do, without doing it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from cache.errors import BuildgraphError, DefinitionError
from compiler.elsewhere import elsewhere
from compiler.explain import NEVER_BUILT, NEW_HERE, explain, explain_forgotten, explain_gone
from compiler.forecast import DEPENDS, HIT, LOCAL, MISS, REMOTE, Forecast, Outlook
from compiler.fresh import Known, is_expired, known_results, layers_of, no_cache, no_cache_text
from compiler.graph import ROOTFS, Graph, ImageSource, Node
from compiler.needs import needed
from compiler.plan import Begin, Plan
from compiler.planned_world import PlannedWorld
from compiler.progress.text import age_text
from compiler.reasons import Explained, Reason
from compiler.records import medians
from compiler.schedule import schedule
from compiler.twins import Twins
from worker.action import spelled
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.result import Result
    from compiler.grounds import Grounds
    from compiler.keys import Keys
    from compiler.lookup import Lookup
    from compiler.options import BuildOptions
    from compiler.records import Expected, StepRecords
    from worker.library import LayerLibrary


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
        grounds: Grounds,
    ) -> None:
        self._graph = graph
        self._keys = keys
        self._lookup = lookup
        self._records = records
        self._library = library
        self._options = options
        self._grounds = grounds
        self._now = time.time()
        self._world: PlannedWorld | None = None
        self._known: Known | None = None
        self._explained: dict[tuple[str, str], Explained] = {}
        self._bottoms: dict[str, Node] = {}
        for node in graph:
            self._bottoms[node.id] = self._bottoms[node.inputs[ROOTFS]] if node.inputs else node

    def forecast(self, slots: int) -> Forecast:
        """slots: steps that may run at the same time."""
        known_now = self._known = known_results(self._graph, self._keys, self._lookup, self._options, self._grounds)
        results = known_now.results
        known = dict(results)
        self._results = results
        self._expired, self._provisional = known_now.expired, known_now.provisional
        self._expectations = self._records.expected()
        self._wanted = needed(self._graph, results)
        self._before = self._results_before()
        self._contents: dict[str, str] = {}
        self._twins = twins = Twins(self._keys)
        self._found: dict[str, Outlook] = {}
        self._open_below: dict[str, str] = {}
        self._assumed: dict[str, Result] = dict(results)
        for node in self._graph:
            outlook = self._found[node.id] = self._outlook(node)
            alone = no_cache(node, self._options) or node.id in known_now.provisional
            twins.note(node, outlook, self._contents.get(node.id, ""), alone=alone)
            # Below a step that is known there may be one that is not: --link looks at nothing, and results go singly.
            opens = node.is_step and outlook.status != HIT and node.id not in known_now.provisional
            below = self._open_below[node.inputs[ROOTFS]] if node.inputs else ""
            self._open_below[node.id] = node.id if opens else below
            if outlook.result is not None:
                results[node.id] = self._assumed[node.id] = outlook.result
        by_content = results.keys() - known.keys()
        spans, makers = schedule(self._graph, known, medians(self._expectations), slots, twins.of, by_content)
        for name, maker in makers.items():
            why = Explained(Reason.SAME_STEP, f"the same as {maker}, whose result it takes")
            self._found[name] = self._found[name]._replace(status=HIT, why=why, if_same="", same_as=maker)
        self._note_likely(twins, self._first(known, slots), [self._graph[span.node] for span in spans])
        self._note_moves()
        path, seconds = self._critical_path(makers)
        return Forecast(tuple(self._found.values()), results, path, seconds, spans)

    def _first(self, known: Mapping[str, Result], slots: int) -> set[str]:
        """The steps that a build begins with, before any other one has ended."""
        commands = Plan(self._graph, known, medians(self._expectations), slots).start()
        return {each.node for each in commands if isinstance(each, Begin)}

    def _note_likely(self, twins: Twins, first: set[str], order: list[Node]) -> None:
        """A step is certain to run only if no other one can make its result before its turn."""
        waits = {node.id: node.id not in first for node in order}
        for name, like in twins.likely(order, waits).items():
            outlook = self._found[name]
            if no_cache(outlook.node, self._options):
                continue
            alike = outlook.status == DEPENDS and outlook.if_same == MISS and twins.is_open_for(outlook.node, like)
            if outlook.status != MISS and not alike:
                continue
            origins = self._origins(outlook.node)
            text = f"{_waits_for(origins)}, and may come out the same as" if origins else "it may come out the same as"
            why = Explained(Reason.INPUT_OPEN, f"{text} {like}", outlook.why.details if alike else ())
            self._found[name] = outlook._replace(status=DEPENDS, why=why, if_same="", like=like)

    def _origins(self, node: Node) -> list[str]:
        """The steps that it waits for."""
        return list(dict.fromkeys(found for name in node.inputs if (found := self._open_below[name])))

    def _results_before(self) -> dict[str, Result]:
        """What the nearest earlier steps gave, of those steps that may run."""
        recipes = {}
        for node in self._graph:
            if node.is_step and node.id in self._wanted and node.id not in self._results:
                recipe = self._records.before(node)
                if recipe:
                    recipes[node.id] = recipe
        return self._lookup.by_recipe(recipes) if recipes else {}

    def _outlook(self, node: Node) -> Outlook:
        recipe = self._keys.recipe(node.id)
        if not node.is_step and not node.inputs:
            return Outlook(node, HIT, Explained(Reason.SOURCE, _source_text(node)), recipe, None)
        if node.kind == "stage":
            waits_for = self._open_below[node.inputs[ROOTFS]]
            why = Explained(Reason.INPUT_OPEN, f"it waits for {waits_for}")
            if not waits_for:
                why = self._found[node.inputs[ROOTFS]].why
            return Outlook(node, DEPENDS if waits_for else HIT, why, recipe, None)
        return self._step(node, recipe)

    def _step(self, node: Node, recipe: str) -> Outlook:
        expected = self._expectations.get(node.id)
        known = self._results.get(node.id)
        if known is not None:
            why = Explained(Reason.SAME_RECIPE, f"made by {known.made_by}, took {known.seconds:.1f} s")
            if makers := self._provisional.get(node.id):
                why = Explained(Reason.INPUT_OPEN, _waits_for(list(makers)))
                return Outlook(node, DEPENDS, why, recipe, None, expected, HIT, varies=known.varies)
            return Outlook(node, HIT, why, recipe, known, expected, varies=known.varies, where=self._where(node))
        if node.id not in self._wanted:
            why = Explained(Reason.NOT_NEEDED, "not needed: what takes from it is cached")
            return Outlook(node, HIT, why, recipe, None, expected)
        old = self._expired.get(node.id)
        before = self._before.get(node.id)
        varies = () if before is None else before.varies
        if before is not None:
            self._assumed[node.id] = before
        if no_cache(node, self._options):
            why = Explained(Reason.NO_CACHE, no_cache_text(node, self._options))
            return Outlook(node, MISS, why, recipe, None, expected, varies=varies)
        if old is not None:
            age = age_text(self._now - old.made_at)
            ttl = spelled(node.policy.ttl or 0.0)
            why = Explained(Reason.EXPIRED, f"its result is {age} old, older than ttl={ttl}")
            return Outlook(node, MISS, why, recipe, None, expected, varies=varies)
        origins = self._origins(node)
        if origins and self._records.ever_made(node.id):
            return self._depending(node, recipe, origins, expected, varies)
        if not origins:
            same = self._by_content(node, self._results)
            if same is not None and not is_expired(node, same, self._now):
                why = Explained(Reason.SAME_CONTENT, "its inputs have the content that they had before")
                return Outlook(node, HIT, why, recipe, same, expected, varies=same.varies, where=self._where(node))
        return Outlook(node, MISS, self.explain(node), recipe, None, expected, varies=varies)

    def _where(self, node: Node) -> str:
        content = self._contents.get(node.id) or self._lookup.contents.get(node.id, "")
        return REMOTE if content in self._lookup.promised else LOCAL

    def _depending(
        self, node: Node, recipe: str, origins: list[str], expected: Expected | None, varies: tuple[str, ...]
    ) -> Outlook:
        """origins: the steps that it waits for."""
        same, if_same, gone = None, "", ""
        if all(self._is_assumed(name) for name in node.inputs):
            # What it needs may not be in what the steps below gave: it may be in what they will.
            with contextlib.suppress(DefinitionError):
                same = self._by_content(node, self._assumed, assumed=True)
            if_same = MISS
        elif content := self._content_before(node, recipe):
            self._twins.note_assumed(node, content)
            same = self._lookup.by_content(content)
            if_same = MISS
            if same is None:
                where = elsewhere(self._lookup, self._records, node, content)
                gone = explain_gone(self._library.store, content, "", where).text.replace("its", "its own", 1)
        if same is not None and not is_expired(node, same, self._now):
            self._assumed[node.id] = same
            if_same = HIT
        why = Explained(Reason.INPUT_OPEN, _waits_for(origins), (gone,) if gone else ())
        return Outlook(node, DEPENDS, why, recipe, None, expected, if_same, varies=varies)

    def _content_before(self, node: Node, recipe: str) -> str:
        """The content key that a step had when all was as it is now, "" if that is not known."""
        place = self._records.place(node.id)
        return place.content if place is not None and place.recipe == recipe else ""

    def _is_assumed(self, name: str) -> bool:
        """Whether all layers of a node are known, or assumed to be what they were."""
        return all(not node.is_step or node.id in self._assumed for node in self._graph.chain(name))

    def explain(self, node: Node) -> Explained:
        """Why no result of this step is known, compared with the nearest earlier build of it."""
        before = self._records.before(node)
        if self._known is not None and node.id in self._known.contradicted:
            return Explained(Reason.BASE_CHANGED, "what it was made of has come out otherwise since")
        if not before:
            return Explained(Reason.NEVER_BUILT, NEW_HERE if self._records.has_places else NEVER_BUILT)
        now = self._records.preimage(node)
        if before == now.recipe:
            place = self._records.place(node.id)
            content = place.content if place is not None and place.recipe == before else ""
            return explain_gone(self._library.store, content, "", elsewhere(self._lookup, self._records, node))
        if self._world is None:
            self._world = PlannedWorld(self._graph, self._keys, self._records)
        earlier = self._records.earlier(before)
        if earlier is None:
            place = self._records.place(node.id)
            content = place.content if place is not None and place.recipe == before else ""
            where = elsewhere(self._lookup, self._records, node)
            return explain_forgotten(self._library.store, content, where)
        return explain(now, earlier, self._world, self._explained)

    def _by_content(self, node: Node, results: Mapping[str, Result], *, assumed: bool = False) -> Result | None:
        """assumed: results are what the steps below gave before, and not known to be what they will give."""
        plain_run = isinstance(node.definition, Run) and all(mount.input is None for mount in node.definition.mounts)
        if not plain_run and not self._listed(node):
            return None
        try:
            key = self._keys.content(node, lambda name: layers_of(self._graph, name, results), self._library)
        except DefinitionError:
            raise
        except BuildgraphError:
            return None
        if assumed:
            self._twins.note_assumed(node, key)
        else:
            self._contents[node.id] = key
        return self._lookup.by_content(key)

    def _images_below(self, node: Node) -> list[tuple[Node, ImageSource]]:
        bottoms = {self._bottoms[name].id: self._bottoms[name] for name in node.inputs}.values()
        return [(each, each.definition) for each in bottoms if isinstance(each.definition, ImageSource)]

    def _listed(self, node: Node) -> bool:
        """Whether all that the node builds on can be looked into without fetching anything."""
        return all(
            self._library.is_listed(layer)
            for _, source in self._images_below(node)
            for layer in source.layers
        )

    def _note_moves(self) -> None:
        """Bytes that come from elsewhere: layers that are not here of what steps that may run build on or take from."""
        opened = [
            each for each in self._found.values()
            if each.node.is_step and each.status != HIT and each.node.id not in self._provisional
        ]  # fmt: skip
        images = {
            image.id: source
            for each in opened
            for image, source in self._images_below(each.node)
        }
        counted: set[str] = set()
        for name, source in images.items():
            # What several have comes once, and is counted at the first.
            layers = {layer.diff_id: layer for layer in source.layers if layer.diff_id not in counted}
            counted |= layers.keys()
            moved = sum(self._library.bytes_to_fetch(layer) for layer in layers.values())
            self._found[name] = self._found[name]._replace(moved=moved)
        if not self._lookup.promised:
            return
        for name in dict.fromkeys(name for each in opened for below in each.node.inputs for name in self._chain(below)):
            outlook = self._found[name]
            layer = None if outlook.result is None else outlook.result.layer
            if layer is not None and layer.diff_id not in counted:
                counted.add(layer.diff_id)
                self._found[name] = outlook._replace(moved=self._library.bytes_to_fetch(layer))

    def _chain(self, name: str) -> list[str]:
        """The steps among the nodes that a root filesystem consists of."""
        return [node.id for node in self._graph.chain(name) if node.is_step]

    def _critical_path(self, makers: Mapping[str, str]) -> tuple[tuple[str, ...], float]:
        """The chain of steps to run that takes longest: along each node's inputs, the one that is done last.

        makers: of steps that are the same, the one that runs: it stands for the others, which are done when it is.
        """
        done_at: dict[str, float] = {}
        before: dict[str, str] = {}
        for node in self._graph:
            latest = max(node.inputs, key=lambda name: done_at[name], default="")
            start = done_at[latest] if latest else 0.0
            expected = self._expectations.get(node.id)
            seconds = 0.0 if expected is None else expected.median
            done_at[node.id] = start + (seconds + 1e-9 if node.is_step and self._found[node.id].is_open else 0.0)
            before[node.id] = latest
        path = []
        name = self._graph.target
        while name:
            if self._found[name].node.is_step and self._found[name].is_open:
                path.append(makers.get(name, name))
            name = before[name]
        return tuple(dict.fromkeys(reversed(path))), done_at[self._graph.target]


def _waits_for(steps: list[str]) -> str:
    return f"it waits for what {' and '.join(steps)} {'makes' if len(steps) == 1 else 'make'}"


def _source_text(node: Node) -> str:
    source = node.definition
    if isinstance(source, ImageSource):
        count = len(source.layers)
        layers = f"{count} {'layer' if count == 1 else 'layers'}"
        return f"{layers}, {source.digest[:19]}" if source.digest else layers
    return {"context": "the files of the context", "http": "fetched", "scratch": "nothing"}[node.kind]
