"""TeamBuild: what a build does with the team's cache: looks up before, fetches and publishes beside, waits after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding
from cache.images import Images
from cache.promises import trim
from cache.recipe import Recipe
from cache.store import Batch
from compiler.fresh import layers_of, no_cache
from compiler.graph import ImageSource
from compiler.needs import needed
from compiler.remote_layers import RemoteLayers
from compiler.remote_publisher import Item, Publisher, base_item
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cache.promises import Promise
    from cache.result import Layer, Result
    from cache.store import Table
    from compiler.graph import Node
    from compiler.progress.events import Event
    from compiler.remote_cache import RemoteCache
    from compiler.session import Session

    Used = tuple[Session, dict[str, str], dict[str, Result]]


MOST_LOOKS = 5
"""How often results are looked up before a build: what was lost may need more than what was known."""


class TeamBuild:
    """images, library: of this build, also when it begins again. made_there: content keys of what workers of the fleet
    made for it: their layers are on the server, and what this build found them by is not yet."""

    def __init__(self, remote: RemoteCache, report: Callable[[Event], None]) -> None:
        self.remote = remote
        self.images = Images(remote.store)
        self.images.more_forms = remote.forms
        self.library = LayerLibrary(remote.store, RemoteLayers(self.images, remote, report))
        self._publisher = Publisher(remote, report)
        self.made_there: set[str] = set()

    def look_up(
        self, sessions: Sequence[Session], prepare_to_run: Callable[[], None] = lambda: None, *, takes_out: bool = False
    ) -> None:
        """Ask for everything that is needed and not known here, at once. prepare_to_run: called before, if a step may
        have to run a program. takes_out: whether the bytes of the images will be wanted.

        What a server promised to an earlier build it may have lost: what is wanted of that is asked about, too, so that
        nothing is said to be known that has to be made.
        """
        for _ in range(MOST_LOOKS):
            self._ask(sessions, prepare_to_run, takes_out=takes_out)
            if not self._drop_lost(sessions, takes_out=takes_out):
                break

    def _ask(self, sessions: Sequence[Session], prepare_to_run: Callable[[], None], *, takes_out: bool) -> None:
        recipes: set[str] = set()
        bases: set[str] = set()
        missing = False
        for session in sessions:
            graph, known = session.graph, session.known().results
            steps = [node for node in graph if node.is_step and node.id in needed(graph, known)]
            absent = [node for node in steps if node.id not in known]
            if absent:
                missing = True
                recipes |= {session.keys.recipe(node.id) for node in absent if not no_cache(node, session.options)}
                bases |= {layer.diff_id for layer in _image_layers(session) if self._is_strange(layer)}
        if not missing:
            if takes_out and any(self.needs_contact(_image_of(session)) for session in sessions):
                self.contact(prepare_to_run)
            return
        # Also where what runs programs is known, or not needed: what a server promised it may not have any more.
        self.contact(prepare_to_run if any(session.graph.has_runs for session in sessions) else lambda: None)
        self.remote.ask(recipes, bases=bases)

    def _drop_lost(self, sessions: Sequence[Session], *, takes_out: bool) -> bool:
        """Whether something that is wanted was lost."""
        if self.remote.client is None:
            return False
        wanted: dict[str, Promise] = {}
        for session in sessions:
            graph, known = session.graph, session.known().results
            steps = [graph[name] for name in needed(graph, known) if graph[name].is_step]
            roots = [name for step in steps if step.id not in known for name in step.inputs]
            roots += [graph.target] if takes_out else []
            chain = {node.id for name in roots for node in graph.chain(name)}
            contents = {session.lookup.contents.get(name, "") for name in chain & known.keys()}
            promised = session.lookup.promised
            wanted |= {content: promised[content] for content in contents & promised.keys()}
        old = {each: promise for each, promise in wanted.items() if not self.remote.promises.is_new(each)}
        lost = self.remote.drop_lost(promise for promise in old.values() if not self._is_here(promise))
        for diff_id in lost:
            self.library.forget(diff_id)
        for session in sessions:
            for content in [key for key, promise in session.lookup.promised.items() if promise.diff_id in lost]:
                del session.lookup.promised[content]
        return bool(lost)

    def contact(self, before: Callable[[], None] = lambda: None) -> bool:
        """Connect, unless that was done. before: what needs a process without threads."""
        self.remote.before_contact = before
        return self.remote.contact()

    def _is_strange(self, layer: Layer) -> bool:
        """Whether nothing is known of what a layer says."""
        known = self.library.known(layer)
        return known.listing is None or not self.remote.store.has_blob(known.listing)

    def needs_contact(self, layers: Iterable[Layer]) -> bool:
        """Whether bytes, or compressed forms, of some of the layers can only be had from the server."""
        known = (self.library.known(layer) for layer in layers)
        return any(layer.tar is None or not self.remote.store.has_blob(layer.tar) for layer in known)

    def made(self, session: Session) -> Callable[[Node, str, Result], None]:
        """What is to be told of each result."""

        def publish(node: Node, content: str, result: Result) -> None:
            if self._is_ours(session, content):
                grounds = session.lookup.grounds.get(node.id, ())
                self._publisher.add(Item(session.keys.recipe(node.id), content, result, grounds))

        return publish

    def finish(
        self, used: Sequence[Used], records: Sequence[tuple[str, str, bytes]], *, ok: bool
    ) -> None:
        """Publish the rest, and wait. used: session, content keys and results of the steps, by their ids."""
        try:
            self._adopt(used)
            if self.remote.settings.write is not None and not self.remote.off:
                self._publish(used, records, ok=ok)
        finally:
            self.keep()

    def _publish(
        self, used: Sequence[Used], records: Sequence[tuple[str, str, bytes]], *, ok: bool
    ) -> None:
        items = [item for session, contents, results in used for item in self._items(session, contents, results)]
        items += [base_item(layer) for session, _, _ in used for layer in self._bases(session)]
        layers = {item.result.layer.diff_id for item in items if item.recipe and item.result.layer is not None}
        left = self._publisher.marks.missing(items)
        if self.remote.client is None and not left and not self._publisher.has_new_forms(layers):
            return
        if not self.contact():
            return
        client = self.remote.client
        for item in self._publisher.marks.missing(items, client.can.server_id if client is not None else ""):
            self._publisher.add(item)
        self._publisher.finish(ok=ok)
        self._publisher.publish_records(records, layers)

    def _items(self, session: Session, contents: dict[str, str], results: dict[str, Result]) -> Iterator[Item]:
        for name, content in contents.items():
            if content and name in results and self._is_ours(session, content):
                yield Item(session.keys.recipe(name), content, results[name], session.lookup.grounds.get(name, ()))

    def _is_ours(self, session: Session, content: str) -> bool:
        """Whether this build is the one to tell the server what it found the result by."""
        return content not in session.lookup.promised or content in self.made_there

    def _adopt(self, used: Sequence[Used]) -> None:
        """What was promised and is here now is the store's own: the next build needs no server to know it."""
        found: dict[str, tuple[Recipe, Promise]] = {}
        for session, contents, _ in used:
            for name, content in contents.items():
                promise = session.lookup.promised.get(content)
                if promise is not None and self._is_here(promise):
                    recipe = Recipe(content, session.lookup.grounds.get(name, ()))
                    found[session.keys.recipe(name)] = (recipe, promise)
        logs = self.remote.read_logs([promise for _, promise in found.values()])
        store = self.remote.store
        for key, (recipe, promise) in found.items():
            result = promise.result
            layer = None if result.layer is None else self.library.known(result.layer)
            if result.log is not None and result.log not in logs and not store.has_blob(result.log):
                continue  # a long one, which comes when it is shown
            rows: list[tuple[Table, str, bytes]] = [("recipes", key, recipe.encode())]
            rows.append(("results", recipe.content, encoding.canonical(result._replace(layer=layer).to_json())))
            blobs = {result.log: logs[result.log]} if result.log is not None and result.log in logs else {}
            named = () if layer is None else (layer.tar, layer.listing)
            needs = tuple(blob for blob in named if blob is not None)
            store.submit(Batch(blobs=blobs, records=tuple(rows), needs=needs))

    def _is_here(self, promise: Promise) -> bool:
        layer, store = promise.result.layer, self.remote.store
        if layer is None:
            return True
        known = self.library.known(layer)
        return all(blob is not None and store.has_blob(blob) for blob in (known.tar, known.listing))

    def _bases(self, session: Session) -> Iterator[Layer]:
        for layer in _image_layers(session):
            known = self.library.known(layer)
            here = known.tar is not None and known.listing is not None and not self._is_strange(layer)
            if here and layer.content == layer.diff_id:
                yield known

    def keep(self) -> None:
        """Remember what was promised."""
        batch = self.remote.promises.batch()
        if batch.records:
            self.remote.store.commit(batch)
            trim(self.remote.store)
            self._publisher.trim()
            if self.remote.client is not None:
                from cache.remote import local_chunks

                local_chunks.trim(self.remote.store)

    def close(self) -> None:
        """End at once."""
        self._publisher.stop()
        self.remote.close()


def _image_of(session: Session) -> Sequence[Layer]:
    """The layers of the image, all of whose steps are known."""
    return layers_of(session.graph, session.graph.target, session.known().results)


def _image_layers(session: Session) -> Iterator[Layer]:
    """Layers of images from outside."""
    for node in session.graph:
        if isinstance(node.definition, ImageSource):
            yield from node.definition.layers
