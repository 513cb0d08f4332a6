"""Names of blobs as they stand on the wire: `HASH/SIZE` under one of two digest functions."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Literal

from blake3 import blake3
from buildgraph.v1 import remote_execution_pb2 as pb

from cache.server.refusal import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

Function = Literal["sha256", "blake3"]
FUNCTIONS: dict[int, Function] = {
    pb.DigestFunction.UNKNOWN: "sha256",  # those that do not say mean it, as their 64 digits tell
    pb.DigestFunction.SHA256: "sha256",
    pb.DigestFunction.BLAKE3: "blake3",
}
MAX_SIZE = 1 << 40
"""Bytes of a blob, 1 TiB: beyond any layer, and far below what overflows."""
EMPTY: dict[Function, str] = {
    "sha256": f"{hashlib.sha256().hexdigest()}/0",
    "blake3": f"{blake3().hexdigest()}/0",
}
"""The empty blob, which always exists."""
_HASH = re.compile(r"[0-9a-f]{64}")
_LONGEST = 65 + len(str(MAX_SIZE)) - 1
"""Characters of a name that is not beyond MAX_SIZE for sure."""


def function_of(value: int) -> Function:
    """Raises Refused."""
    function = FUNCTIONS.get(value)
    if function is None:
        raise invalid("this server names blobs by SHA256 or BLAKE3; set digest_function to one of them")
    return function


def name_of(digest: pb.Digest) -> str:
    """`HASH/SIZE`. Raises Refused for what is no digest."""
    return checked_name(digest.hash, digest.size_bytes)


def checked_name(hash_: str, size: int) -> str:
    if not _HASH.fullmatch(hash_):
        raise invalid(f"a digest has 64 lower-case hex digits, this one is {hash_[:80]!r}")
    if not 0 <= size <= MAX_SIZE:
        raise invalid(f"a blob has 0 to {MAX_SIZE} bytes, this digest says {size}")
    return f"{hash_}/{size}"


def names_of(digests: Sequence[pb.Digest]) -> list[str]:
    """The same for many, with little work for each."""
    names = [f"{digest.hash}/{digest.size_bytes}" for digest in digests]
    if names and not _are_right(names):
        for digest in digests:
            name_of(digest)
    return names


def _are_right(names: Sequence[str]) -> bool:
    """Whether all of them surely are names, told from all together: each has one slash, at its place."""
    raw = "".join(names).encode("utf-8", "replace")
    if raw.count(b"/") != len(names) or raw.translate(None, b"0123456789abcdef/"):
        return False
    return min(map(len, names)) >= 66 and max(map(len, names)) <= _LONGEST and {name[64] for name in names} == {"/"}


def size_of(name: str) -> int:
    return int(name[65:])


def message_of(name: str) -> pb.Digest:
    return pb.Digest(hash=name[:64], size_bytes=int(name[65:]))


def name_by(function: Function, data: bytes | memoryview) -> str:
    """What bytes are called under a function."""
    hash_ = hashlib.sha256(data).hexdigest() if function == "sha256" else blake3(data).hexdigest()
    return f"{hash_}/{len(data)}"
