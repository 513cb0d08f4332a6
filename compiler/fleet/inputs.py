"""Inputs: what an action needs is on the server, as layers, before a worker is asked to make it."""

from __future__ import annotations

import posixpath
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from cache.entry import DIRECTORY
from cache.errors import DefinitionError
from worker.action import Cancelled
from worker.copy_plan import CopyPlan
from worker.copy_write import write_plan
from worker.fleet.action_body import FILE, Body, Place
from worker.operation import Run
from worker.run_key import path_digest
from worker.selection import missing_hint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.digest import Digest
    from cache.result import Layer
    from worker.action import Action
    from worker.library import LayerLibrary
    from worker.operation import Mount
    from worker.tree import Tree


LOOK_SECONDS = 0.1
"""How often a thread that waits for what another one sends looks whether anybody still wants it."""


class Shelf(Protocol):
    """Where workers get blobs from, by their BLAKE3 names. Its methods raise Cancelled soon after that is wanted."""

    def missing(self, blobs: Sequence[Digest], cancelled: Callable[[], bool], /) -> list[Digest]:
        """Those that it has not. Raises RemoteError."""
        ...

    def put(self, blobs: Sequence[Digest], cancelled: Callable[[], bool], /) -> None:
        """Give it blobs of the local store. Raises RemoteError, StoreProblem."""
        ...


class Inputs:
    """Of one build. May be used by several threads; no layer is asked about or sent twice."""

    def __init__(self, library: LayerLibrary, shelf: Shelf) -> None:
        self._library = library
        self._shelf = shelf
        self._lock = threading.Lock()
        self._sent: dict[str, Future[Layer]] = {}
        self._made: dict[tuple[int, str], tuple[Tree, Layer]] = {}

    def prepare(self, action: Action, cancelled: Callable[[], bool] = lambda: False) -> Body:
        """The action with layers alone as inputs, each complete and on the shelf.

        Raises DefinitionError for a mount of what is not there, RemoteError, LayerGone, StoreProblem, Cancelled.
        """
        body = self.as_layers(action)
        action = body.action
        every = {layer.diff_id: layer for given in action.inputs if isinstance(given, tuple) for layer in given}
        ready = self._send(list(every.values()), cancelled)
        inputs = tuple(
            tuple(ready[layer.diff_id]._replace(content=layer.content) for layer in given)
            for given in action.inputs
            if isinstance(given, tuple)
        )
        return body._replace(action=action._replace(inputs=inputs))

    def as_layers(self, action: Action) -> Body:
        """For each mount of a context's files there is a layer that has just those."""
        operation = action.operation
        assert isinstance(operation, Run)
        inputs = list(action.inputs)
        places: list[Place] = []
        for number, mount in enumerate(operation.mounts):
            given = None if mount.input is None else action.inputs[mount.input]
            if given is not None and not isinstance(given, tuple):
                layer, source = self._layer(given, mount)
                places.append(Place(number, len(inputs), source, path_digest(given, mount.source)))
                inputs.append((layer,))
        # A context keeps its place, with nothing in it, so that numbers stay what they are.
        kept = tuple(given if isinstance(given, tuple) else () for given in inputs)
        return Body(action._replace(inputs=kept), tuple(places))

    def _layer(self, tree: Tree, mount: Mount) -> tuple[Layer, str]:
        """A part of a tree, and where it stands in the layer: as a step that runs here sees it."""
        found = tree.resolve(mount.source)
        if found.entry is None:
            text = f"there is no {mount.source!r} to mount at {mount.target}"
            raise DefinitionError(text, hint=missing_hint(tree, mount.source))
        source = "" if found.entry.kind == DIRECTORY else FILE
        place = (id(tree), posixpath.join("/", found.path))
        with self._lock:
            known = self._made.get(place)
        if known is not None:
            return known[1], source
        plan = CopyPlan(self._library.rootfs(()), owner=None, mode="", now=0)
        if not source:
            plan.content("", tree, found.path)
        else:
            plan.file(FILE, tree, found.entry, found.layer)
        layer, batch = self._library.write_layer(lambda fd: write_plan(plan, fd))
        # Files of the user's own are no result: nothing but this build names them.
        self._library.store.submit(batch._replace(records=()))
        with self._lock:
            # With the tree, so that no other one gets its id.
            return self._made.setdefault(place, (tree, layer))[1], source

    def _send(self, layers: Sequence[Layer], cancelled: Callable[[], bool]) -> dict[str, Layer]:
        """By diff_id, with tar and listing, once the shelf has them."""
        mine: dict[str, Layer] = {}
        waiting: dict[str, Future[Layer]] = {}
        with self._lock:
            for layer in layers:
                future = self._sent.get(layer.diff_id)
                if future is None:
                    future = self._sent[layer.diff_id] = Future()
                    mine[layer.diff_id] = layer
                waiting[layer.diff_id] = future
        if mine:
            try:
                ready = self._send_new(list(mine.values()), cancelled)
            except BaseException as error:
                with self._lock:
                    for diff_id in mine:
                        self._sent.pop(diff_id).set_exception(error)
                raise
            for diff_id, layer in ready.items():
                waiting[diff_id].set_result(layer)
        return {diff_id: _sent(future, cancelled) for diff_id, future in waiting.items()}

    def _send_new(self, layers: list[Layer], cancelled: Callable[[], bool]) -> dict[str, Layer]:
        library = self._library
        known = {layer.diff_id: library.known(layer) for layer in layers}
        incomplete = [layer for layer in known.values() if layer.tar is None or layer.listing is None]
        known.update((layer.diff_id, layer) for layer in library.fetch_all(incomplete))
        absent = set(self._shelf.missing([blob for layer in known.values() for blob in _blobs(layer)], cancelled))
        # What only another namespace promised, or an image's registry has, comes here first.
        lacking = [layer for layer in known.values() if not absent.isdisjoint(_blobs(layer))]
        if lacking:
            here = library.fetch_all(lacking)
            known.update((layer.diff_id, layer) for layer in here)
            self._shelf.put([blob for layer in here for blob in _blobs(layer)], cancelled)
        return known


def _sent(future: Future[Layer], cancelled: Callable[[], bool]) -> Layer:
    while True:
        try:
            return future.result(LOOK_SECONDS)
        except TimeoutError:
            if cancelled():
                raise Cancelled from None


def _blobs(layer: Layer) -> list[Digest]:
    assert layer.tar is not None
    assert layer.listing is not None
    return [layer.tar, layer.listing]
