"""Our results as the ActionResults that any server of the Remote Execution API keeps, and back."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from blake3 import blake3
from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import team_pb2
from google.protobuf.message import DecodeError

from cache.errors import CorruptBlob
from cache.promises import Names, Origin, Promise
from cache.recipe import Recipe
from cache.wire import decode_result, encode_result

if TYPE_CHECKING:
    from cache.result import Result

TAR = "layer.tar"
LISTING = "layer.index"
_HEX64 = re.compile(r"[0-9a-f]{64}")
_MAX_SIZE = 1 << 40


def action_text(kind: str, key: str) -> bytes:
    """The blob whose digest stands for an action. kind: recipe, content or layer."""
    return f"buildgraph.v1 {kind} {key}".encode()


def signed_text(key: str, worker: bytes) -> bytes:
    """The same for a result of an action that a worker has signed. key: its content key. worker: the worker's."""
    return action_text(f"content by {worker.hex()}", key)


def name_by(function: str, data: bytes) -> str:
    """`HASH/SIZE` of bytes under a digest function."""
    hash_ = hashlib.sha256(data).hexdigest() if function == "sha256" else blake3(data).hexdigest()
    return f"{hash_}/{len(data)}"


def digest_of(name: str) -> pb.Digest:
    return pb.Digest(hash=name[:64], size_bytes=int(name[65:]))


def size_of(name: str) -> int:
    return int(name[65:])


def encode_action_result(recipe: Recipe, result: Result, names: Names) -> pb.ActionResult:
    """names: of the blobs that are to be there."""
    message = pb.ActionResult()
    for path, name in ((TAR, names.tar), (LISTING, names.listing)):
        if name:
            message.output_files.add(path=path, digest=digest_of(name))
    if names.log:
        message.stdout_digest.CopyFrom(digest_of(names.log))
    metadata = message.execution_metadata
    metadata.worker = result.made_by
    start = max(0.0, result.made_at - result.seconds)
    for field, at in (
        (metadata.execution_start_timestamp, start), (metadata.execution_completed_timestamp, result.made_at)
    ):  # fmt: skip
        field.FromMilliseconds(round(at * 1000))
    shared = team_pb2.Shared(content_key=recipe.content, recipe=recipe.text if recipe.grounds else "")
    shared.result.ParseFromString(encode_result(result))
    metadata.auxiliary_metadata.add().Pack(shared)
    return message


def decode_action_result(message: pb.ActionResult, origin: Origin) -> tuple[Recipe, Promise]:
    """(what the action came to, what is promised).

    Raises CorruptBlob for what `encode_action_result` could not have made.
    """
    shared = team_pb2.Shared()
    if not any(_unpack(each, shared) for each in message.execution_metadata.auxiliary_metadata):
        raise CorruptBlob("the remote's result is none of buildgraph's")
    if not _HEX64.fullmatch(shared.content_key):
        raise CorruptBlob("the remote's result has no key")
    result = decode_result(shared.result.SerializeToString())
    files = {file.path: _name(file.digest) for file in message.output_files}
    log = _name(message.stdout_digest) if message.HasField("stdout_digest") else ""
    names = Names(files.get(TAR, ""), files.get(LISTING, ""), log)
    _check(result, names, origin.function)
    recipe = Recipe.parse(shared.recipe.encode()) if shared.recipe else Recipe(shared.content_key)
    if recipe is None or recipe.content != shared.content_key:
        raise CorruptBlob("the remote's result contradicts itself")
    return recipe, Promise(result, origin, names)


def _unpack(packed: object, shared: team_pb2.Shared) -> bool:
    try:
        return bool(packed.Unpack(shared))  # type: ignore[attr-defined]
    except DecodeError:
        return False


def _check(result: Result, names: Names, function: str) -> None:
    """That both halves of the message speak of the same blobs."""
    layer = result.layer
    tar = layer.tar if layer is not None else None
    listing = layer.listing if layer is not None else None
    if bool(names.listing) != (listing is not None) or bool(names.log) != (result.log is not None):
        raise CorruptBlob("the remote's result names other blobs than it has")
    for digest, name in ((tar, names.tar), (listing, names.listing), (result.log, names.log)):
        if name and (digest is None or digest.size != size_of(name)):
            raise CorruptBlob("the remote's result names a blob of another size than it has")
        if name and function == "blake3" and name != str(digest):
            raise CorruptBlob("the remote's result names another blob than it has")
    if names.tar and function == "sha256" and layer is not None and names.tar[:64] != layer.diff_id[7:]:
        raise CorruptBlob("the remote's result has another layer than it says")


def _name(digest: pb.Digest) -> str:
    if not _HEX64.fullmatch(digest.hash) or not 0 <= digest.size_bytes <= _MAX_SIZE:
        raise CorruptBlob("the remote's result names a blob by something that is no digest")
    return f"{digest.hash}/{digest.size_bytes}"
