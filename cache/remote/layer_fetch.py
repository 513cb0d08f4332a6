"""Fetching a layer from a server into the store: nothing that it says is believed without its bytes."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cache import encoding
from cache.digest import Digest
from cache.errors import CorruptBlob, CorruptLayer, StoreProblem
from cache.index import Index
from cache.layer_reader import import_layer
from cache.store import Batch, NewFile

if TYPE_CHECKING:
    from cache.layer_writer import LayerTar
    from cache.lmdb_store import LmdbStore
    from cache.promises import Promise
    from cache.remote.local_chunks import LocalChunks
    from cache.remote.reading import BlobReader
    from cache.result import Layer


def fetch_layer(store: LmdbStore, reader: BlobReader, chunks: LocalChunks, promise: Promise) -> tuple[Layer, Index]:
    """Bring tar and listing into the store, durable later.

    The tar's BLAKE3 and sha256 must be those of the layer, and the listing what reading the tar says; else nothing is
    kept. Raises CorruptBlob, CorruptLayer, Missing, RemoteTrouble, StoreProblem.
    """
    layer = promise.result.layer
    assert layer is not None
    assert layer.tar is not None
    path = store.scratch("fetch")
    try:
        pieces, parts = reader.pieces(promise.origin.namespace, promise.names.tar, chunks)
        made = _import(path, pieces)
        if made.diff_id != layer.diff_id or made.blob != layer.tar:
            raise CorruptBlob(f"what {promise.origin.server} gave for the layer {layer.diff_id} is {made.diff_id}")
        index, encoded = _listing(reader, promise, layer, made)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    listing = Digest.of(encoded)
    known = layer._replace(listing=listing)
    store.submit(
        Batch(
            blobs={listing: encoded},
            files=(NewFile(made.blob, path),),
            records=(("layers", layer.diff_id, encoding.canonical(known.to_json())),),
        )
    )
    if parts:
        chunks.remember(made.blob, parts)
    return known, index


def _import(path: str, pieces: object) -> LayerTar:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return import_layer(pieces, fd)  # type: ignore[arg-type]
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreProblem(f"cannot keep a layer: {error.strerror}") from None


def _listing(reader: BlobReader, promise: Promise, layer: Layer, made: LayerTar) -> tuple[Index, bytes]:
    """What the tar says, encoded as the result has it. Raises CorruptLayer if the result says something else."""
    encoded = made.index.encode()
    if Digest.of(encoded) != layer.listing:
        # Another release of zstd packs otherwise: then what is packed decides.
        encoded = reader.read(promise.origin.namespace, promise.names.listing)
        if Index.decode(encoded) != made.index:
            raise CorruptLayer(f"the listing of the layer {layer.diff_id} says something else than its tar")
    if layer.content not in (made.index.content(), layer.diff_id):
        raise CorruptLayer(f"the layer {layer.diff_id} says something else than its result")
    return made.index, encoded
