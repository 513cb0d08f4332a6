"""NoFetcher: what a worker's library asks for layers that its lease's inputs did not bring: there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import RemoteError

if TYPE_CHECKING:
    from cache.index import Index
    from cache.result import Layer


class NoFetcher:
    """A `Fetcher`. This module imports nothing that could start a thread before the keeper is forked."""

    def fetch(self, layer: Layer) -> Layer:
        raise RemoteError(f"the layer {layer.diff_id} is not at hand")

    def fetched_size(self, layer: Layer) -> int:
        del layer
        return 0

    def promised(self, layer: Layer) -> Layer | None:
        del layer
        return None

    def index(self, layer: Layer) -> Index | None:
        del layer
        return None
