"""Placing: bringing the layers of an image to where some of them may be already."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from compiler.progress.text import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from cache.digest import OciDigest
    from cache.oci import Descriptor
    from cache.result import Layer
    from compiler.export.built import BuiltImage
    from compiler.export.compress import Blob, Compressor, Known
    from compiler.export.compression import Compression

T = TypeVar("T")

PARALLEL = 4
"""Layers that are packed and moved at the same time; more of them only compete for the same processors and line."""


class Place(Protocol):
    """Where blobs go: a registry's repository, a layout. Used by several threads."""

    def has(self, known: Known) -> bool:
        """Whether the blob is there, or could be made to be there without its bytes."""
        ...

    def put(self, digest: OciDigest, size: int, open_chunks: Callable[[], Iterable[bytes]]) -> None: ...


class Placed(NamedTuple):
    """A layer's form that is in its place now. moved: its bytes had to go there."""

    descriptor: Descriptor
    moved: bool


def place_layers(
    layers: Iterable[Layer],
    compressor: Compressor,
    compression: Compression,
    place: Place,
    report: Callable[[str], None],
) -> dict[str, Placed]:
    """Bring every layer there, equal ones once, by diff_id; what is there already is neither fetched nor packed."""

    def bring(layer: Layer) -> Placed:
        known = compressor.known(layer, compression)
        if known is not None and place.has(known):
            return Placed(known.descriptor, False)
        blob = compressor.blob(layer, compression)
        if known is None or known.descriptor != blob.descriptor:
            known = compressor.known(layer, compression)
            if known is not None and place.has(known):
                return Placed(known.descriptor, False)
        descriptor = blob.descriptor
        report(f"layer {descriptor.digest.hex[:12]}: {size_text(descriptor.size)}")
        place.put(descriptor.digest, descriptor.size, blob.open_chunks)
        return Placed(descriptor, True)

    unique = {layer.diff_id: layer for layer in layers}
    return dict(zip(unique, _in_parallel(bring, unique.values()), strict=True))


def pack_layers(layers: Iterable[Layer], compressor: Compressor, compression: Compression) -> dict[str, Blob]:
    """The bytes of every layer by diff_id, for a place that has none yet."""
    unique = {layer.diff_id: layer for layer in layers}
    return dict(zip(unique, _in_parallel(lambda one: compressor.blob(one, compression), unique.values()), strict=True))


def all_layers(images: Iterable[BuiltImage]) -> Iterator[Layer]:
    """The layers of every image, one image after the other."""
    return (layer for image in images for layer in image.layers)


def descriptors(layers: Mapping[str, Placed] | Mapping[str, Blob]) -> dict[str, Descriptor]:
    """What layers became, by diff_id."""
    return {diff_id: layer.descriptor for diff_id, layer in layers.items()}


def _in_parallel(do: Callable[[Layer], T], layers: Collection[Layer]) -> list[T]:
    """`do` for each; after a failure nothing more is begun."""
    if len(layers) < 2:
        return [do(layer) for layer in layers]
    pool = ThreadPoolExecutor(PARALLEL, "export")
    try:
        return list(pool.map(do, layers))
    finally:
        pool.shutdown(cancel_futures=True)
