"""BuildLog: notes what one build did and used, for `why`, `log`, `cache stat` and for what may be evicted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache.build_record import BesideRecord, BuildRecord, NodeRecord, new_key
from cache.store import Batch
from cache.usage import Usage, layer_key, project_key, project_record, result_key
from compiler.graph import ROOTFS, ImageSource, StageOutput
from compiler.reasons import Reason
from compiler.secret_configs import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cache.result import Result
    from cache.store import Table
    from compiler.graph import Node
    from compiler.session import Session


class BuildLog:
    """Collects the steps of one build of one platform; `batch` at its end."""

    def __init__(self, session: Session, made_by: str) -> None:
        self._session = session
        self._made_by = made_by
        self._started = time.time()
        self._began = time.monotonic()
        self._nodes: dict[str, NodeRecord] = {}
        self._found: list[Node] = []
        self.record: BuildRecord | None = None

    def known(self, node: Node, result: Result) -> None:
        """A step whose recipe was known."""
        content = self._session.lookup.contents.get(node.id, "")
        recipe = self._session.keys.recipe(node.id)
        if content in self._session.lookup.promised:
            self._found.append(node)
        self._nodes[node.id] = NodeRecord(
            node.id, node.text, "cached", Reason.SAME_RECIPE.value, recipe, content,
            seconds=result.seconds, log=result.log,
        )  # fmt: skip

    def ended(self, nodes: Mapping[str, NodeRecord]) -> None:
        """Steps that came to an end in the dispatcher, which says by the monotonic clock when they started."""
        self._nodes.update(
            (name, node if node.started is None else node._replace(started=max(0.0, node.started - self._began)))
            for name, node in nodes.items()
        )

    def contents(self) -> dict[str, str]:
        """Content keys of the steps that have results, by their ids."""
        return {node.id: node.content for node in self._nodes.values() if node.status in ("cached", "ran")}

    def batch(self, *, ok: bool, image: str) -> Batch:
        """What is to be kept. image: `sha256:…`, "" for none."""
        session = self._session
        key = new_key(self._started)
        build = self.record = BuildRecord(
            key, session.project, session.records.file, session.graph.target, str(session.options.platform),
            self._started, time.monotonic() - self._began, ok, self._made_by, image, self._shown_nodes(),
            self._beside(),
        )  # fmt: skip
        # A step that never ended leaves its place as it was, so that the next build is compared with one that did.
        places = {
            node.id: session.records.place_now(session.graph[node.id], node.content)
            for node in self._nodes.values()
            if node.status in ("cached", "ran")
        }
        made_elsewhere = self._made_elsewhere()
        for node in made_elsewhere:
            known = session.records.place(node.id)
            if node.id not in places and (known is None or known.recipe != session.keys.recipe(node.id)):
                content = session.lookup.contents.get(node.id, "")
                places[node.id] = session.records.place_now(node, content)
        rows = [build.encode(), session.records.built(key, places), *self._explaining(made_elsewhere)]
        output = session.graph[session.graph.target].definition
        if ok and isinstance(output, StageOutput):
            rows += rows_of(session.store, output.config, session.graph.secrets)
        return Batch(records=(*rows, *self._uses(), *session.sources.records()))

    def _made_elsewhere(self) -> list[Node]:
        """Steps that a cache server had results of, and those that these took from, though nobody asked for them."""
        graph = self._session.graph
        found: dict[str, Node] = {}
        own = self._nodes.keys() - {node.id for node in self._found}
        pending = list(self._found)
        while pending:
            node = pending.pop()
            if node.id in found or node.id in own:
                continue
            found[node.id] = node
            pending += [graph[name] for name in node.inputs]
        return [node for node in found.values() if node.is_step]

    def _explaining(self, nodes: list[Node]) -> Iterator[tuple[Table, str, bytes]]:
        """What the next build is told by why a step is another than these, as whoever made them has noted it: all of
        it is known here, too."""
        session = self._session
        recipes = {node.id: session.keys.recipe(node.id) for node in nodes}
        kept = session.store.get_many("preimages", set(recipes.values()))
        for node in nodes:
            if recipes[node.id] not in kept:
                noted = self._nodes.get(node.id)
                yield from session.records.made(node, noted.seconds if noted is not None else None)

    def _shown_nodes(self) -> tuple[NodeRecord, ...]:
        shown = self._session.graph.secrets.shown
        return tuple(
            node._replace(title=shown(node.title), note=shown(node.note), inputs=self._inputs(node.id))
            for node in self._nodes.values()
        )

    def _beside(self) -> tuple[BesideRecord, ...]:
        """Sources, and steps that nothing was asked of."""
        shown = self._session.graph.secrets.shown
        return tuple(
            BesideRecord(shown(node.id), node.kind, shown(node.text), self._inputs(node.id))
            for node in self._session.graph
            if node.kind != "stage" and node.id not in self._nodes
        )

    def _inputs(self, name: str) -> tuple[str, ...]:
        """What a node takes from, through stages."""
        graph = self._session.graph
        found = []
        for each in graph[name].inputs:
            while graph[each].kind == "stage":
                each = graph[each].inputs[ROOTFS]
            found.append(graph.secrets.shown(each))
        return tuple(dict.fromkeys(found))

    def _uses(self) -> list[tuple[Table, str, bytes]]:
        """When what was used was last used, and by which project."""
        store, project = self._session.store, self._session.project
        keys = [result_key(node.content) for node in self._nodes.values() if node.status in ("cached", "ran")]
        sources = [node.definition for node in self._session.graph if isinstance(node.definition, ImageSource)]
        keys += [layer_key(layer.diff_id) for source in sources for layer in source.layers]
        known = store.get_many("uses", set(keys))
        name = project_record(project)
        rows: list[tuple[Table, str, bytes]] = [] if store.get(name[0], name[1]) == name[2] else [name]
        for key in dict.fromkeys(keys):
            used = Usage.parse(known.get(key)).used(self._started, project_key(project))
            rows.append(("uses", key, used.encode()))
        return rows
