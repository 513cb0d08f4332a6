"""Fresh: which results that are known may be used, as the user and each step's policy want it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from compiler.graph import ROOTFS, ImageSource
from compiler.grounds import Filesystems, is_complete
from compiler.needs import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cache.recipe import Ground
    from cache.result import Layer, Result
    from compiler.graph import Graph, Node
    from compiler.grounds import Grounds
    from compiler.keys import Keys
    from compiler.lookup import Lookup
    from compiler.options import BuildOptions


class Known(NamedTuple):
    """results: node id → result that may be used. expired: those that are older than their step's `ttl`. contradicted:
    steps whose result was made from something else than what their inputs are now. provisional: those whose result is
    good if what the build makes below them comes out as before → the steps that make that."""

    results: dict[str, Result]
    expired: dict[str, Result]
    contradicted: frozenset[str]
    provisional: dict[str, tuple[str, ...]]


def known_results(
    graph: Graph, keys: Keys, lookup: Lookup, options: BuildOptions, grounds: Grounds, *, strict: bool = False
) -> Known:
    """Results by recipe key, looked up in one batch, except where the user wants no cache.

    Nor above such a step: what it makes this time decides by its content. strict: nor above anything that the build
    makes.
    """
    recipes = {node.id: keys.recipe(node.id) for node in graph if node.is_step}
    found = lookup.by_recipe(recipes)
    now = time.time()
    old: dict[str, Result] = {}
    results: dict[str, Result] = {}
    contradicted: set[str] = set()
    anew: set[str] = set()
    claims: dict[str, str] = {}
    filesystems = Filesystems()
    for node in graph:
        result = found.get(node.id)
        if result is not None and is_expired(node, result, now):
            old[node.id] = result
            anew.add(node.id)
        elif no_cache(node, options) or not anew.isdisjoint(node.inputs):
            anew.add(node.id)
        elif result is not None:
            layers = partial(layers_of, graph, results=results)
            if _holds(node, lookup.grounds.get(node.id, ()), filesystems, claims, partial(grounds.hold, layers=layers)):
                results[node.id] = result
            else:
                contradicted.add(node.id)
                anew.add(node.id)
        filesystems.note(node, results.get(node.id))
    provisional = _provisional(graph, results, lookup)
    while strict and provisional:
        for node in graph:
            if node.id in provisional or not anew.isdisjoint(node.inputs):
                anew.add(node.id)
                results.pop(node.id, None)
        provisional = _provisional(graph, results, lookup)
    return Known(results, old, frozenset(contradicted), provisional)


def _holds(
    node: Node,
    recorded: tuple[Ground, ...],
    filesystems: Filesystems,
    claims: dict[str, str],
    look: Callable[[Node, Ground], bool],
) -> bool:
    """claims: what others among the known results were made from, by the input; added to. Two that were made from
    different outcomes of a stage must not meet in one image, though nobody has that stage any more. look: whether an
    input with other layers still is what the step saw in it."""
    for ground in recorded:
        name = node.inputs[ground.number] if ground.number < len(node.inputs) else ""
        if not name:
            return False
        now = filesystems.fingerprint(name)
        if now:
            if now != ground.layers and not look(node, ground):
                return False
        elif ground.number != ROOTFS and claims.setdefault(name, ground.layers) != ground.layers:
            return False
    return True


def _provisional(graph: Graph, results: Mapping[str, Result], lookup: Lookup) -> dict[str, tuple[str, ...]]:
    wanted = needed(graph, results)
    made: dict[str, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for node in graph:
        if node.is_step and node.id in wanted and node.id not in results:
            made[node.id] = node.id
        elif node.inputs and (below := made.get(node.inputs[ROOTFS])):
            made[node.id] = below
        if node.is_step and node.id in wanted and node.id in results:
            names = [node.inputs[ground.number] for ground in lookup.grounds.get(node.id, ())]
            waits_for = tuple(dict.fromkeys(made[name] for name in names if name in made))
            if waits_for:
                found[node.id] = waits_for
    return found


class Provisional:
    """Known results that stand on what this build still makes: good unless that comes out otherwise than before."""

    def __init__(self, graph: Graph, grounds: Grounds, lookup: Lookup, steps: Collection[str]) -> None:
        """steps: ids of those that have such a result."""
        self._graph = graph
        self._grounds = grounds
        self._open = {name: list(lookup.grounds.get(name, ())) for name in steps}

    def contradicted(self, results: Mapping[str, Result]) -> str:
        """A step whose result must not be used, "" if there is none as far as inputs are known by now. Tells of each
        input once."""
        for name, grounds in self._open.items():
            node = self._graph[name]
            for ground in list(grounds):
                if is_complete(self._graph, node.inputs[ground.number], results):
                    grounds.remove(ground)
                    if not self._grounds.hold(node, ground, lambda given: layers_of(self._graph, given, results)):
                        return name
        return ""


def no_cache(node: Node, options: BuildOptions) -> bool:
    """Whether this step is to run whatever is known."""
    return node.is_step and (options.no_cache or node.stage in options.no_cache_stages or node.policy.no_cache)


def no_cache_text(node: Node, options: BuildOptions) -> str:
    """Who wants that, as a sentence."""
    if options.no_cache:
        return "--no-cache says so"
    if node.stage in options.no_cache_stages:
        return f"--no-cache-filter {node.stage} says so"
    return "the comment `# buildgraph: no-cache` says so"


def is_expired(node: Node, result: Result, now: float) -> bool:
    """Whether the result is older than the step's `ttl`."""
    return node.policy.ttl is not None and now - result.made_at > node.policy.ttl


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
