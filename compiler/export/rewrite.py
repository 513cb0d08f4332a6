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
    built = {layer.diff_id: layer for layer in image.layers if layer.content != layer.diff_id}
    made = {diff_id: _made_before(layer, epoch, store) for diff_id, layer in built.items()}
    late = [layer for diff_id, layer in built.items() if made[diff_id] is None and _is_late(layer, epoch, library)]
    library.fetch_all(late)  # several at a time
    made |= {layer.diff_id: _clamped(layer, epoch, library, store) for layer in late}
    layers = tuple(made.get(layer.diff_id) or layer for layer in image.layers)
    if layers == image.layers:
        return image
    diff_ids = tuple(OciDigest(layer.diff_id) for layer in layers)
    return image._replace(layers=layers, config=image.config._replace(diff_ids=diff_ids))


def _is_late(layer: Layer, epoch: int, library: LayerLibrary) -> bool:
    """Whether it would have other bytes if it was written again."""
    return any(entry.mtime > epoch for entry in library.index(layer).entries)


def _key(layer: Layer, epoch: int) -> str:
    return f"{CLAMP}{epoch}:{layer.diff_id}"


def _made_before(layer: Layer, epoch: int, store: Store) -> Layer | None:
    record = store.get("outputs", _key(layer, epoch))
    if record is None:
        return None
    found = Layer.from_json(encoding.parse(record))
    here = all(blob is not None and store.has_blob(blob) for blob in (found.tar, found.listing))
    return found if here else None


def _clamped(layer: Layer, epoch: int, library: LayerLibrary, store: Store) -> Layer:
    index, tar_fd = library.index(layer), library.open_tar(layer)
    made, batch = library.write_layer(lambda fd: clamp(index, tar_fd, fd, epoch))
    records = (*batch.records, ("outputs", _key(layer, epoch), encoding.canonical(made.to_json())))
    store.submit(Batch(blobs=batch.blobs, files=batch.files, records=records))
    return made
