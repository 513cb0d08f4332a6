"""Wire: layers and results as protobuf messages, the form in which they travel between machines. The only door.

The store itself keeps JSON: importing protobuf takes 24 ms, which a build with nothing to do does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import records_pb2

from cache.digest import Digest, OciDigest
from cache.errors import CorruptBlob
from cache.result import MAX_VARIES, Layer, Result

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PATH = 4096
"""Bytes of a path, Linux's own limit."""
MAX_TEXT = 1000
"""Characters of a name in a message from somebody else."""


def encode_result(result: Result) -> bytes:
    """A result as the bytes of a `buildgraph.v1.Result`."""
    message = records_pb2.Result(
        duration_us=round(result.seconds * 1_000_000),
        made_at_ms=round(result.made_at * 1000),
        made_by=result.made_by,
        created_ms=round(result.created * 1000),
        varies=[path.encode("utf-8", "surrogateescape") for path in result.varies],
    )
    if result.layer is not None:
        message.layer.CopyFrom(_layer_message(result.layer))
    if result.log is not None:
        message.log.CopyFrom(_digest_message(result.log))
    return message.SerializeToString(deterministic=True)


def decode_result(data: bytes) -> Result:
    """Read untrusted bytes. Raises CorruptBlob for anything that `encode_result` could not have written."""
    message = records_pb2.Result()
    _checked(lambda: message.ParseFromString(data))
    if min(message.duration_us, message.made_at_ms, message.created_ms) < 0 or len(message.made_by) > MAX_TEXT:
        raise CorruptBlob("a result has a negative time or an endless name")
    if any(len(path) > MAX_PATH for path in message.varies):
        raise CorruptBlob("a result names a path that is longer than any")
    return Result(
        layer=_layer(message.layer) if message.HasField("layer") else None,
        log=_digest(message.log) if message.HasField("log") else None,
        seconds=message.duration_us / 1_000_000,
        made_at=message.made_at_ms / 1000,
        made_by=message.made_by,
        varies=tuple(path.decode("utf-8", "surrogateescape") for path in message.varies[:MAX_VARIES]),
        created=message.created_ms / 1000,
    )


def _layer_message(layer: Layer) -> records_pb2.Layer:
    message = records_pb2.Layer(diff_id=layer.diff_id, content=layer.content)
    if layer.tar is not None:
        message.tar.CopyFrom(_digest_message(layer.tar))
    if layer.listing is not None:
        message.listing.CopyFrom(_digest_message(layer.listing))
    return message


def _layer(message: records_pb2.Layer) -> Layer:
    if not message.content or len(message.content) > MAX_TEXT:
        raise CorruptBlob("a layer has no content digest")
    if message.HasField("tar") != message.HasField("listing"):
        raise CorruptBlob("a layer has a tar without a listing, or the reverse")
    return Layer(
        diff_id=str(OciDigest(message.diff_id)),
        content=message.content,
        tar=_digest(message.tar) if message.HasField("tar") else None,
        listing=_digest(message.listing) if message.HasField("listing") else None,
    )


def _digest_message(digest: Digest) -> records_pb2.Digest:
    return records_pb2.Digest(hash=bytes.fromhex(digest.hash), size=digest.size)


def _digest(message: records_pb2.Digest) -> Digest:
    if len(message.hash) != 32 or message.size < 0:
        raise CorruptBlob("a message names a blob by something that is no digest")
    return Digest(message.hash.hex(), message.size)


def _checked(parse: Callable[[], object]) -> None:
    from google.protobuf.message import DecodeError

    try:
        parse()
    except DecodeError:
        raise CorruptBlob("a message is not what it should be") from None
