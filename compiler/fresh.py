"""Fresh: which results that are known may be used, as the user and each step's policy want it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from compiler.graph import ImageSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.result import Layer, Result
    from compiler.graph import Graph, Node
    from compiler.keys import Keys
    from compiler.lookup import Lookup
    from compiler.options import BuildOptions


class Known(NamedTuple):
    """results: node id → result that may be used. expired: those that are older than their step's `ttl`."""

    results: dict[str, Result]
    expired: dict[str, Result]


def known_results(graph: Graph, keys: Keys, lookup: Lookup, options: BuildOptions) -> Known:
    """Results by recipe key, looked up in one batch, except where the user wants no cache.

    Nor above such a step: what it makes this time decides by its content.
    """
    recipes = {node.id: keys.recipe(node.id) for node in graph if node.is_step}
    found = lookup.by_recipe(recipes)
    now = time.time()
    old: dict[str, Result] = {}
    anew: set[str] = set()
    for node in graph:
        result = found.get(node.id)
        if result is not None and is_expired(node, result, now):
            old[node.id] = result
            anew.add(node.id)
        elif no_cache(node, options) or not anew.isdisjoint(node.inputs):
            anew.add(node.id)
    return Known({name: result for name, result in found.items() if name not in anew}, old)


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
