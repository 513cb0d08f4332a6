"""Grounds: what a step's inputs were when its content key was worked out, and whether they still are that.

A recipe key says how everything below a step is made. What of that is evicted, and made again, may come out otherwise
this time; a result that was made from the earlier one must not stand on the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blake3 import blake3

from cache import encoding
from cache.errors import DefinitionError, RemoteError
from cache.recipe import FINGERPRINT, Ground
from compiler.graph import ROOTFS, ImageSource
from worker.operation import Copy, Pattern, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cache.result import Layer, Result
    from compiler.graph import Graph, Node
    from compiler.keys import Keys
    from worker.library import LayerLibrary


class Grounds:
    """May be used by several threads at once."""

    def __init__(self, keys: Keys, library: LayerLibrary) -> None:
        self._keys = keys
        self._library = library

    def of(self, node: Node, layers: Callable[[str], Sequence[Layer]]) -> tuple[Ground, ...]:
        """Of a step whose content key was just worked out, for its record. layers: of an input node, lowest first."""
        return tuple(
            Ground(number, fingerprint(layers(node.inputs[number])), _key(self._keys.seen(node, number)))
            for number in self._numbers(node)
        )

    def hold(self, node: Node, ground: Ground, layers: Callable[[str], Sequence[Layer]]) -> bool:
        """Whether the input, which is known, is what it was, as far as the step looks at it."""
        if ground.number >= len(node.inputs):
            return False
        given = layers(node.inputs[ground.number])
        if fingerprint(given) == ground.layers:
            return True
        if not ground.seen or not all(map(self._library.is_listed, given)):
            return False
        try:
            return _key(self._keys.facts(node, ground.number, layers, self._library)) == ground.seen
        except (DefinitionError, RemoteError):
            return False

    def _numbers(self, node: Node) -> list[int]:
        """The inputs that consist of layers and are looked at."""
        operation = node.definition
        found: set[int] = set()
        if isinstance(operation, Copy):
            found = {each.input for each in operation.sources if isinstance(each, Pattern)}
        elif isinstance(operation, Run):
            found = {mount.input for mount in operation.mounts if mount.input is not None}
        found = {number for number in found if not self._keys.is_tree(node, number)}
        return sorted(found if self._keys.ignores_rootfs(node) else found | {ROOTFS})


class Filesystems:
    """Fingerprints of the filesystems of nodes, each worked out from the one below it. Inputs first."""

    def __init__(self) -> None:
        self._known: dict[str, blake3 | None] = {}

    def note(self, node: Node, result: Result | None) -> None:
        """result: of a step, None if it is not known."""
        below = self._known[node.inputs[ROOTFS]] if node.inputs else _START
        if isinstance(node.definition, ImageSource):
            below = _with(_START, node.definition.layers)
        elif node.is_step:
            made = () if result is None or result.layer is None else (result.layer,)
            below = None if below is None or result is None else _with(below, made)
        self._known[node.id] = below

    def fingerprint(self, name: str) -> str:
        """"" if not all of its layers are known."""
        known = self._known[name]
        return "" if known is None else _digits(known)


def is_complete(graph: Graph, name: str, results: Mapping[str, Result]) -> bool:
    """Whether all layers of a node's root filesystem are known."""
    return all(not node.is_step or node.id in results for node in graph.chain(name))


_START = blake3(b"ground\n")


def fingerprint(layers: Sequence[Layer]) -> str:
    return _digits(_with(_START, layers))


def _with(below: blake3, layers: Iterable[Layer]) -> blake3:
    added = "".join(f"{layer.content}\n" for layer in layers).encode()
    if not added:
        return below
    more = below.copy()
    more.update(added)
    return more


def _digits(hasher: blake3) -> str:
    return hasher.hexdigest()[:FINGERPRINT]


def _key(facts: Any) -> str:
    return "" if facts is None else encoding.key("seen", facts)[:FINGERPRINT]
