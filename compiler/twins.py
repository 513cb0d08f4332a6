"""Twins: steps of one build that come to the same action, so that one makes the result and the others take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.forecast import DEPENDS, HIT
from compiler.graph import ROOTFS, ImageSource
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from compiler.forecast import Outlook
    from compiler.graph import Node
    from compiler.keys import Keys

_NOTHING = 0
"""The number of a filesystem without layers."""


class Twins:
    """Finds them while a forecast goes through the graph. of: a step → the first one that is the same.

    Only what is certain: steps whose content keys are known and equal; and steps that do the same with the same files
    of the context, on filesystems and sources of the same layers, as far as these are known, and of the same steps from
    there on. What else comes out equal, only the build can see: `likely` says where it may.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._numbers: dict[Hashable, int] = {}
        self._filesystems: dict[str, int] = {}
        self._first: dict[Hashable, str] = {}
        self._contents: dict[str, str] = {}
        self._assumed: dict[str, str] = {}
        self._bottoms: dict[str, Node] = {}
        self._inputs: dict[str, tuple[str, ...]] = {}
        self._all_below: dict[str, set[str]] = {}
        self.of: dict[str, str] = {}

    def note(self, node: Node, outlook: Outlook, content: str = "", *, alone: bool = False) -> None:
        """Inputs first. content: the step's content key, "" if it is not known yet. alone: it is to run whatever
        others made."""
        self._bottoms[node.id] = self._bottoms[node.inputs[ROOTFS]] if node.inputs else node
        self._contents[node.id] = content
        self._inputs[node.id] = node.inputs
        if isinstance(node.definition, ImageSource):
            number = _NOTHING
            for layer in node.definition.layers:
                number = self._on(number, layer.content)
        elif not node.inputs:
            number = _NOTHING  # what is taken of a context is in the step's own key
        elif not node.is_step:
            number = self._filesystems[node.inputs[ROOTFS]]
        else:
            below = self._filesystems[node.inputs[ROOTFS]]
            if outlook.result is not None:
                made = outlook.result.layer
                number = below if made is None else self._on(below, made.content)
            else:
                number = self._on(below, ("made by", self._maker(node, outlook, content, alone)))
        self._filesystems[node.id] = number

    def _on(self, below: int, what: Hashable) -> int:
        """The number of a filesystem with one more layer; equal numbers mean equal contents."""
        return self._numbers.setdefault((below, what), len(self._numbers) + 1)

    def _maker(self, node: Node, outlook: Outlook, content: str, alone: bool) -> str:
        if alone or outlook.status == HIT:
            return node.id
        # Of two that wait, one with another ttl may not find good enough what the other does.
        patience = node.policy.ttl if outlook.status == DEPENDS else None
        first = self._first.setdefault((outlook.status, patience, content or self._recipe(node)), node.id)
        if first != node.id:
            self.of[node.id] = first
        return first

    def _recipe(self, node: Node) -> Hashable:
        rootfs, *sources = (self._filesystems[name] for name in node.inputs)
        blind = not self._keys.parts(node.id)["rootfs"]  # COPY --link looks at nothing below
        return self._keys.own(node.id), _NOTHING if blind else rootfs, tuple(sources)

    def likely(self, order: Iterable[Node], waits: Mapping[str, bool]) -> dict[str, str]:
        """A step → another one that it may come out the same as, unless it surely begins before all of those.

        order: steps that may run, as they begin. waits: by step, whether others have to be done before it begins.
        """
        seen: dict[str, list[Node]] = {}
        found: dict[str, str] = {}
        for node in order:
            others = seen.setdefault(self._keys.own(node.id), [])
            for other in others:
                if not self._may_equal(other, node):
                    continue
                found.setdefault(node.id, other.id)
                if not self._begins_first(other, node, waits):
                    found.setdefault(other.id, node.id)
            others.append(node)
        return found

    def note_assumed(self, node: Node, content: str) -> None:
        """content: the key that a step has if what it waits for comes out as before."""
        self._assumed[node.id] = content

    def is_open_for(self, node: Node, likely: str) -> bool:
        """Whether the two may be the same even if what they wait for comes out as before."""
        one, other = (self._contents[name] or self._assumed.get(name, "") for name in (node.id, likely))
        return not (one and other) or one == other

    def _begins_first(self, one: Node, other: Node, waits: Mapping[str, bool]) -> bool:
        """Whether no order of events has the other one begin before."""
        return (waits[other.id] and not waits[one.id]) or one.id in self._below(other)

    def _below(self, node: Node) -> set[str]:
        """All that has to be there before it."""
        known = self._all_below.get(node.id)
        if known is not None:
            return known
        found = self._all_below[node.id] = set(node.inputs)
        waiting = list(found)
        while waiting:
            new = set(self._inputs[waiting.pop()]) - found
            found.update(new)
            waiting += new
        return found

    def _may_equal(self, one: Node, other: Node) -> bool:
        """Whether two that do the same with the same files of the context can have the same inputs."""
        if self._contents[one.id] and self._contents[other.id]:
            return False
        if not isinstance(one.definition, Run):
            return True  # what these look at may be the same wherever they stand
        lower, upper = (self._bottoms[each.id].definition for each in (one, other))
        if not isinstance(lower, ImageSource) or not isinstance(upper, ImageSource):
            return True
        return all(a.content == b.content for a, b in zip(lower.layers, upper.layers, strict=False))
