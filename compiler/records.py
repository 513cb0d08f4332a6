"""What a build remembers of its steps beside their results: how long they took, and what their keys were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cache import encoding
from worker.operation import key_form

if TYPE_CHECKING:
    from cache.store import Store, Table
    from compiler.graph import Graph, Node

RUNS_KEPT = 7
"""Durations remembered of one operation; their median is what it is expected to take."""
_PARTS = {"operation", "platform", "sources", "rootfs"}
"""What a recipe key is made of, see `Keys.parts`."""


class _Place(NamedTuple):
    """seconds: of the last runs, oldest first. parts: of the recipe key, None if they were not kept."""

    seconds: list[float]
    parts: dict[str, Any] | None


class StepRecords:
    """file: which Dockerfile in which context, so that the same place in a file is found again."""

    def __init__(self, store: Store, file: str) -> None:
        self._store = store
        self._file = encoding.key("file", file)[:32]

    def expected(self, graph: Graph) -> dict[str, float]:
        """Seconds that each step took in earlier runs of the same operation, else of the same place; absent if none."""
        steps = [node for node in graph if node.is_step]
        keys = {node.id: (self._operation_key(node), self._place_key(node)) for node in steps}
        records = self._store.get_many("places", {key for pair in keys.values() for key in pair})
        found = {}
        for name, pair in keys.items():
            for key in pair:
                seconds = sorted(_parse(records.get(key)).seconds)
                if seconds:
                    found[name] = seconds[len(seconds) // 2]
                    break
        return found

    def last_parts(self, node: Node) -> dict[str, Any] | None:
        """What the recipe key of the step at this place was made of last time; None if there was none."""
        return _parse(self._store.get("places", self._place_key(node))).parts

    def ran(self, node: Node, parts: dict[str, Any], seconds: float | None) -> list[tuple[Table, str, bytes]]:
        """Records of a step that ran, or was a hit (seconds None)."""
        records: list[tuple[Table, str, bytes]] = []
        for key, own in ((self._operation_key(node), None), (self._place_key(node), parts)):
            if own is None and seconds is None:
                continue
            known = self._store.get("places", key)
            before = _parse(known).seconds
            times = before if seconds is None else [*before[1 - RUNS_KEPT :], round(seconds, 4)]
            value = encoding.canonical({"seconds": times, "parts": own})
            if value != known:
                records.append(("places", key, value))
        return records

    def _operation_key(self, node: Node) -> str:
        return "op:" + encoding.key("operation", key_form(node.definition))[:32]

    def _place_key(self, node: Node) -> str:
        return f"at:{self._file}:{node.id}"


def _parse(record: bytes | None) -> _Place:
    """A record's content; nothing for one that is missing or damaged."""
    if record is not None:
        try:
            value = encoding.parse(record)
            parts = value["parts"]
            if parts is not None and (not parts.keys() >= _PARTS or not isinstance(parts["operation"], dict)):
                parts = None
            return _Place([float(each) for each in value["seconds"]], parts)
        except encoding.UNREADABLE:
            pass
    return _Place([], None)
