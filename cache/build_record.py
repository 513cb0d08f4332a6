"""BuildRecord: what one build did, node by node; kept for `why`, `log` and `cache stat`."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cache import encoding
from cache.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.store import Store, Table

NodeStatus = Literal["cached", "ran", "failed", "cancelled"]
VERSION = 3
"""Version 1 knew neither inputs nor what stands beside the steps, version 2 not when and where steps ran."""
TITLE_LIMIT = 120
"""Characters of an instruction that are kept."""
MAX_SECONDS = 1e11
"""What a calendar can show."""


class NodeRecord(NamedTuple):
    """One step.

    recipe, content: its keys, content "" if it never came so far. status: `cached` is also one that another build made
    meanwhile. reason: a `Reason`'s value, "" where comparing the recipes tells it; note: its sentence if that would
    not. before: the recipe key that it is to be compared with, "" for none. seconds: of this build's execution, or of
    the one that made what was found. log: of what it printed, None for nothing. inputs: ids of the steps, or of what
    stands `beside` them, that it took from, through stages. started: seconds from the start of the build until its turn
    came, None if it was not executed. waited: seconds from then until somebody began it. worker: of the fleet, who
    executed it; "" for the machine that built.
    """

    id: str
    title: str
    status: NodeStatus
    reason: str
    recipe: str
    content: str = ""
    before: str = ""
    note: str = ""
    seconds: float = 0.0
    log: Digest | None = None
    inputs: tuple[str, ...] = ()
    started: float | None = None
    waited: float = 0.0
    worker: str = ""


class BesideRecord(NamedTuple):
    """What steps took from and is no step of the build's own: an image, a context, a file from the web (text: which),
    or a step that the build could do without (text: its instruction)."""

    id: str
    kind: str
    text: str
    inputs: tuple[str, ...] = ()


class BuildRecord(NamedTuple):
    """key: unique, in order of time. project: its name. file: of the definition, see `StepRecords`. target: stage.
    started: seconds since the epoch. seconds: wall time. ok: whether it ended well. image: `sha256:…` or "".
    beside: what else is needed to draw the graph."""

    key: str
    project: str
    file: str
    target: str
    platform: str
    started: float
    seconds: float
    ok: bool
    made_by: str
    image: str
    nodes: tuple[NodeRecord, ...]
    beside: tuple[BesideRecord, ...] = ()

    def encode(self) -> tuple[Table, str, bytes]:
        """As a record of the table `builds`."""
        value = [
            VERSION, self.project, self.file, self.target, self.platform, round(self.started, 3),
            round(self.seconds, 3), self.ok, self.made_by, self.image,
            [_row(node) for node in self.nodes],
            [[*each[:2], each.text[:TITLE_LIMIT], list(each.inputs)] for each in self.beside],
        ]  # fmt: skip
        return "builds", self.key, zlib.compress(encoding.canonical(value), 1)

    def node(self, node_id: str) -> NodeRecord | None:
        return next((node for node in self.nodes if node.id == node_id), None)

    @classmethod
    def parse(cls, key: str, record: bytes) -> BuildRecord | None:
        """None for a record that is damaged, or of a version that this program does not know."""
        try:
            version, *fields = encoding.parse(zlib.decompress(record))
            if version not in (1, 2, VERSION):
                return None
            if version == 1:
                fields = [*fields[:-1], [[*row, []] for row in fields[-1]], []]
            if version < VERSION:
                fields[-2] = [[*row, None, 0.0, ""] for row in fields[-2]]
            *fields, nodes, beside = fields
            project, file, target, platform, started, seconds, ok, made_by, image = fields
            return cls(
                key, str(project), str(file), str(target), str(platform), _number(started), _number(seconds),
                bool(ok), str(made_by), str(image), tuple(_node(node) for node in nodes),
                tuple(BesideRecord(str(name), str(kind), str(text), _names(of)) for name, kind, text, of in beside),
            )  # fmt: skip
        except (*encoding.UNREADABLE, zlib.error):
            return None


def _row(node: NodeRecord) -> list[Any]:
    log = None if node.log is None else str(node.log)
    started = None if node.started is None else round(node.started, 4)
    return [
        *node._replace(title=node.title[:TITLE_LIMIT])[:8], round(node.seconds, 4), log, list(node.inputs),
        started, round(node.waited, 4), node.worker,
    ]  # fmt: skip


def _node(value: Any) -> NodeRecord:
    *texts, seconds, log, inputs, started, waited, worker = value
    node_id, title, status, reason, recipe, content, before, note = (str(each) for each in texts)
    if status not in ("cached", "ran", "failed", "cancelled"):
        raise ValueError(f"a node's status is {status}")
    known: NodeStatus = status  # type: ignore[assignment]  # one of the four, as was just seen
    return NodeRecord(
        node_id, title, known, reason, recipe, content, before, note, _number(seconds),
        None if log is None else Digest.parse(log), _names(inputs),
        None if started is None else _number(started), _number(waited), str(worker),
    )  # fmt: skip


def _number(value: Any) -> float:
    """Raises ValueError for what is none: others' records are read, too."""
    if not isinstance(value, int | float) or not -MAX_SECONDS < value < MAX_SECONDS:  # not-a-number is not, either
        raise ValueError("a time is no number")
    return float(value)


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in value)


def new_key(started: float) -> str:
    """A key that sorts by time and that no other build has."""
    return f"{int(started * 1000):012x}-{os.urandom(4).hex()}"


def all_builds(store: Store) -> list[BuildRecord]:
    """Every build that is remembered, oldest first."""
    return list(newest_builds(store))[::-1]


def newest_builds(store: Store) -> Iterator[BuildRecord]:
    """The same, newest first; each is parsed when it is asked for."""
    for key, record in reversed(store.scan("builds")):
        build = BuildRecord.parse(key, record)
        if build is not None:
            yield build
