"""RemoteLayers: where layers come from: the team's cache if it promised one, else the place that the image names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache.errors import CorruptBlob
from cache.index import Index
from compiler.progress.events import Task
from compiler.progress.text import size_text
from compiler.remote_cache import LayerGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.images import Images
    from cache.result import Layer
    from compiler.progress.events import Event
    from compiler.remote_cache import RemoteCache

TOLD_FROM = 2 << 20
"""Bytes of a layer whose fetching is shown."""


class RemoteLayers:
    """A `Fetcher` in front of `Images`. May be used by several threads."""

    def __init__(self, images: Images, remote: RemoteCache, report: Callable[[Event], None]) -> None:
        self._images = images
        self._remote = remote
        self._report = report

    def fetch(self, layer: Layer) -> Layer:
        """Raises LayerGone for one that only the team's cache had, and as `Images.fetch`."""
        promise = self._remote.promises.layer(layer.diff_id)
        if promise is None:
            if layer.content != layer.diff_id and self._remote.promises.was_promised(layer.diff_id):
                remote = self._remote
                why = remote.why_off if remote.off else "has it no more"
                text = f"the layer {layer.diff_id} is only at {remote.settings.origin}, which {why}"
                raise LayerGone(layer.diff_id, text)
            return self._from_image(layer)
        size = promise.result.size or 0
        name = f"fetching {size_text(size)} from {self._remote.settings.origin}"
        started = time.monotonic()
        if size >= TOLD_FROM:
            self._report(Task(name, "started", 0.0))
        try:
            found, _ = self._remote.fetch(promise)
        except BaseException:
            if size >= TOLD_FROM:
                self._report(Task(name, "failed", time.monotonic() - started))
            raise
        if size >= TOLD_FROM:
            self._report(Task(name, "done", time.monotonic() - started))
        return found

    def _from_image(self, layer: Layer) -> Layer:
        found = self._images.fetch(layer)
        said = self._remote.promises.base(layer.diff_id)
        if said is None or said.result.layer is None or said.result.layer.listing == found.listing:
            return found
        # Another release of zstd packs otherwise; anything else is a lie, on which steps may have been built.
        listing = self._remote.promises.listing(layer.diff_id)
        if listing is not None and found.listing is not None:
            store = self._remote.store
            if Index.decode(listing) != Index.decode(store.read_blob(found.listing)):
                error = CorruptBlob(f"the remote's listing of {layer.diff_id} says something else than its tar")
                self._remote.lose(layer, error)
                raise LayerGone(layer.diff_id, error.message)
        return found

    def fetched_size(self, layer: Layer) -> int:
        promise = self._remote.promises.layer(layer.diff_id)
        return self._images.fetched_size(layer) if promise is None else promise.result.size or 0

    def promised(self, layer: Layer) -> Layer | None:
        """The layer with the names of its tar and listing, which are not here."""
        promise = self._remote.promises.layer(layer.diff_id) or self._remote.promises.base(layer.diff_id)
        return None if promise is None else promise.result.layer

    def index(self, layer: Layer) -> Index | None:
        """What a layer says, without its bytes; None if that is not to be had."""
        data = self._remote.read_listing(layer.diff_id)
        if data is None:
            return None
        try:
            index = Index.decode(data)
            if layer.content != layer.diff_id and index.content() != layer.content:
                raise CorruptBlob(f"the remote's listing of the layer {layer.diff_id} is another layer's")
        except CorruptBlob as error:
            self._remote.lose(layer, error)
            return None
        return index
