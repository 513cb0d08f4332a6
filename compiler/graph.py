"""Graph: the nodes of one build and what each needs of the others; acyclic by construction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from compiler.dockerfile.policy import NO_POLICY, Policy
from compiler.secret_values import SecretValues
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import networkx

    from cache.image_config import ImageConfig
    from cache.reference import Reference
    from cache.result import Layer
    from compiler.dockerfile.source import Span
    from worker.operation import Operation

ROOTFS = 0
"""The input of a step or stage that is the root filesystem it builds on."""


class ImageSource(NamedTuple):
    """An image that was resolved: what its name led to. digest: of its manifest, "" for an image of the store."""

    name: str
    reference: Reference | None
    layers: tuple[Layer, ...]
    digest: str


class ContextSource(NamedTuple):
    """A local directory. name: of a named context, "" for the build's own."""

    name: str


class HttpSource(NamedTuple):
    """A file behind a URL. checksum: `sha256:…` or "". shown: the URL for people, "" if it has no secret in it."""

    url: str
    checksum: str
    shown: str = ""


class ScratchSource(NamedTuple):
    """Nothing."""


Source = ImageSource | ContextSource | HttpSource | ScratchSource


class HistoryItem(NamedTuple):
    """A line of the history that is still without a time. node: the step whose layer it stands for, "" for none."""

    created_by: str
    node: str = ""


class StageOutput(NamedTuple):
    """What a stage amounts to beside its filesystem. config: with the base's history and layers; history: of the
    instructions since."""

    config: ImageConfig
    history: tuple[HistoryItem, ...]


class Node(NamedTuple):
    """One vertex.

    id: unique, readable: `build.3` is the third instruction below `FROM … AS build`. kind: image, context, http,
    scratch, run, copy, add, workdir or stage. stage: its stage's name or number, "" for sources. text: its
    instruction. span: where it stands, None for sources. inputs: ids of nodes; number ROOTFS is the root filesystem.
    platform: what its commands run on, `linux/amd64`; "" for sources without one. policy: of a step, how to treat it;
    no part of what it makes.
    """

    id: str
    kind: str
    stage: str
    text: str
    span: Span | None
    inputs: tuple[str, ...]
    definition: Source | Operation | StageOutput
    platform: str = ""
    policy: Policy = NO_POLICY

    @property
    def is_step(self) -> bool:
        """Whether it is executed."""
        return self.kind in ("run", "copy", "add", "workdir")


class Graph:
    """Nodes in an order in which all inputs of a node come before it. target: the id of the wanted stage node. secrets:
    what no record and no message may tell of the variables behind it."""

    def __init__(self) -> None:
        self.secrets = SecretValues()
        self._nodes: dict[str, Node] = {}
        self.target = ""

    def add(self, node: Node) -> Node:
        """Add a node whose inputs are there; equal nodes may be added again. ValueError otherwise: no cycle can be."""
        if self._nodes.get(node.id, node) != node or any(name not in self._nodes for name in node.inputs):
            raise ValueError(f"node {node.id} is there already, or one of its inputs is not")
        self._nodes[node.id] = node
        return node

    def __getitem__(self, node_id: str) -> Node:
        return self._nodes[node_id]

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._nodes

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def has_runs(self) -> bool:
        """Whether some step may have to run a program."""
        return any(isinstance(node.definition, Run) for node in self)

    def chain(self, node_id: str) -> list[Node]:
        """The nodes whose layers make up this node's root filesystem, lowest first, ending with the node itself."""
        chain = [self._nodes[node_id]]
        while chain[-1].inputs:
            chain.append(self._nodes[chain[-1].inputs[ROOTFS]])
        return chain[::-1]

    def digraph(self) -> networkx.DiGraph[str]:
        """The same as a networkx graph, edges from input to node; importing networkx takes 140 ms."""
        import networkx

        graph: networkx.DiGraph[str] = networkx.DiGraph()
        for node in self:
            graph.add_node(node.id, node=node)
            graph.add_edges_from((name, node.id) for name in node.inputs)
        return graph
