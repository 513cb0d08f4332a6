"""The layer of a snapshot as its message, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import records_pb2

from cache.errors import CorruptBlob
from cache.result import Layer, Result
from cache.size_text import bytes_text
from cache.wire import decode_result, encode_result
from worker.fleet.mount_limits import MAX_SNAPSHOT

if TYPE_CHECKING:
    from buildgraph.v1 import fleet_pb2 as pb


def layer_message(layer: Layer) -> records_pb2.Layer:
    return records_pb2.Result.FromString(encode_result(Result(layer, None, 0.0, 0.0, ""))).layer


def snapshot_layer(snapshot: pb.MountSnapshot) -> Layer:
    """With its tar and listing. Raises CorruptBlob for what is no layer, or one that is too large."""
    layer = decode_result(records_pb2.Result(layer=snapshot.layer).SerializeToString()).layer
    if layer is None or layer.tar is None or layer.listing is None:
        raise CorruptBlob("a snapshot of a cache mount has a layer without its blobs")
    if layer.tar.size > MAX_SNAPSHOT:
        text = f"a snapshot of a cache mount has {bytes_text(layer.tar.size)}, more than {bytes_text(MAX_SNAPSHOT)}"
        raise CorruptBlob(text)
    return layer
