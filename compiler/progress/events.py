"""Events: what happens in a build, as the views of its progress learn it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from compiler.graph import ROOTFS
from compiler.progress.text import printable

if TYPE_CHECKING:
    from compiler.graph import Graph, Node

Status = Literal["done", "cached", "failed", "cancelled"]
TaskStatus = Literal["started", "done", "failed"]

TITLE_LIMIT = 400
"""Characters of a title; an instruction can be a whole shell script on one logical line."""


class NodeInfo(NamedTuple):
    """A node as views show it. number: the `#N` of plain output, from 1. title: one line, free of control characters.
    stage, kind: as in the graph. inputs: ids of the sources and steps that it takes from, through stages."""

    id: str
    number: int
    title: str
    stage: str
    kind: str
    inputs: tuple[str, ...] = ()


class Announced(NamedTuple):
    """All nodes that the build may show; comes first."""

    nodes: tuple[NodeInfo, ...]


class Started(NamedTuple):
    """A node is being executed or read. why: what changed since it was built last, "" if there is nothing to say.
    reason: a `Reason`'s value, said or not. key: its content key."""

    id: str
    why: str = ""
    reason: str = ""
    key: str = ""


class Placed(NamedTuple):
    """A node is being executed on a machine of the fleet, or on this one in spite of it. where: which, and why.
    worker: its name, "" for this machine."""

    id: str
    where: str
    worker: str = ""


class Printed(NamedTuple):
    """A node's program printed a line, given as it came, without its end."""

    id: str
    line: str


class Finished(NamedTuple):
    """A node came to its end, also one that never started.

    seconds: of the execution; 0 lets the view measure from Started. size: bytes of the layer, None for none or unknown.
    note: what else is to say, as "equal to an earlier result"; "" for nothing. reason, key: as in Started, of one that
    was known. worker: of the fleet, which made it; "" for this machine.
    """

    id: str
    status: Status
    seconds: float
    size: int | None
    note: str
    reason: str = ""
    key: str = ""
    worker: str = ""


class Waiting(NamedTuple):
    """A node cannot go on yet, and why."""

    id: str
    reason: str


class Transfer(NamedTuple):
    """Bytes that a node has moved so far, of how many in all (None if unknown); may come many times a second."""

    id: str
    done: int
    total: int | None


class Task(NamedTuple):
    """Work on the image as a whole, such as pushing it. name: says which, in words. seconds: 0 at the start."""

    name: str
    status: TaskStatus
    seconds: float


class Warned(NamedTuple):
    """Something that the user should know and that does not stop the build; may have several lines."""

    text: str


class Ended(NamedTuple):
    """The build is over; comes last, and what is drawn stays as it is.

    digest: of the image, "" for none. message: why it failed, "" if it did not. Views for people show neither: the
    caller prints the one on stdout and the other with the Dockerfile's lines under it. hits: steps that were known.
    ran: steps that were executed.
    """

    ok: bool
    seconds: float
    digest: str
    hits: int
    ran: int
    message: str


Event = Announced | Started | Placed | Printed | Finished | Waiting | Transfer | Task | Warned | Ended


class Reporter(Protocol):
    """A view. It never raises on account of its stream: once that is gone, nothing more is written.

    What is reported after Ended or `close` may be dropped.
    """

    def report(self, event: Event) -> None:
        """Take an event; may be called from several threads at once."""
        ...

    def close(self) -> None:
        """Write what is left and give the terminal back; may be called twice. Steps that still run without an Ended
        are shown as cancelled."""
        ...


def node_infos(graph: Graph) -> tuple[NodeInfo, ...]:
    """What to announce of a graph: sources and steps in the graph's order, numbered from 1."""
    shown = [node for node in graph if node.kind not in ("stage", "scratch")]
    titles = _step_titles(graph)
    return tuple(
        NodeInfo(
            node.id, number, _one_line(titles.get(node.id) or _source_title(node)), node.stage, node.kind,
            _inputs(graph, node),
        )
        for number, node in enumerate(shown, 1)
    )  # fmt: skip


def _inputs(graph: Graph, node: Node) -> tuple[str, ...]:
    found = []
    for name in node.inputs:
        while graph[name].kind == "stage":
            name = graph[name].inputs[ROOTFS]
        found.append(name)
    return tuple(dict.fromkeys(found))


def _source_title(node: Node) -> str:
    name = {"image": "image", "context": "context", "http": "http"}.get(node.kind, node.kind)
    return f"{name} {node.text}".rstrip()


def _step_titles(graph: Graph) -> dict[str, str]:
    """`[STAGE i/n] INSTRUCTION` by node, as BuildKit counts: an image that the stage starts from is number 1, and a
    stage that stands alone without a name gets none."""
    stages: dict[str, list[Node]] = {}
    for node in graph:
        if node.is_step:
            stages.setdefault(node.stage, []).append(node)
    alone = sum(node.kind == "stage" for node in graph) <= 1
    titles = {}
    for stage, steps in stages.items():
        first = 2 if graph[steps[0].inputs[ROOTFS]].kind == "image" else 1
        total = len(steps) + first - 1
        name = f"stage-{stage}" if stage.isdigit() else stage
        prefix = "" if stage.isdigit() and alone else f"{name} "
        for number, node in enumerate(steps, first):
            titles[node.id] = f"[{prefix}{number:>{len(str(total))}}/{total}] {node.text}"
    return titles


def _one_line(text: str) -> str:
    text = printable(text.replace("\r", " ").replace("\n", " ").replace("\t", " "))
    return text if len(text) <= TITLE_LIMIT else text[: TITLE_LIMIT - 1] + "…"
