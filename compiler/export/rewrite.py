"""Rewrite: an image without times later than SOURCE_DATE_EPOCH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding
from cache.digest import OciDigest
from cache.layer_rewriter import clamp
from cache.naming import CLAMP
from cache.result import Layer
from cache.store import Batch

if TYPE_CHECKING:
    from cache.store import Store
    from compiler.export.built import BuiltImage
    from worker.library import LayerLibrary


def clamped(image: BuiltImage, epoch: int, library: LayerLibrary, store: Store) -> BuiltImage:
    """The image with no modification time after `epoch` (seconds) in the layers that were built.

    Layers of the base image stay as they are: they do not depend on when the build ran, and their digests are known
    to registries. The new layers are kept, so that the next export does nothing. Raises StoreProblem.
    """
    layers = tuple(
        layer if layer.content == layer.diff_id else _clamped(layer, epoch, library, store) for layer in image.layers
    )
    if layers == image.layers:
        return image
    diff_ids = tuple(OciDigest(layer.diff_id) for layer in layers)
    return image._replace(layers=layers, config=image.config._replace(diff_ids=diff_ids))


def _clamped(layer: Layer, epoch: int, library: LayerLibrary, store: Store) -> Layer:
    key = f"{CLAMP}{epoch}:{layer.diff_id}"
    record = store.get("outputs", key)
    if record is not None:
        found = Layer.from_json(encoding.parse(record))
        if all(blob is not None and store.has_blob(blob) for blob in (found.tar, found.listing)):
            return found
    index = library.index(layer)
    if all(entry.mtime <= epoch for entry in index.entries):
        return layer  # written again it would have the same bytes
    tar_fd = library.open_tar(layer)
    made, batch = library.write_layer(lambda fd: clamp(index, tar_fd, fd, epoch))
    records = (*batch.records, ("outputs", key, encoding.canonical(made.to_json())))
    store.submit(Batch(blobs=batch.blobs, files=batch.files, records=records))
    return made
