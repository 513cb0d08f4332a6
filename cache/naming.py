"""Naming: which blobs a record names, told without taking the record apart."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cache.store import Table

NAMING: Final[tuple[Table, ...]] = ("results", "layers", "outputs", "names", "fetches", "builds", "members", "actions")
"""Tables whose values name blobs that must be there."""
# Compiled when they are first used: a build with nothing to do names nothing.
_BLOB = rb'"([0-9a-f]{64}/[0-9]{1,19})"'
_LAYER = rb'"(sha256:[0-9a-f]{64})"'
_HASH = rb"[0-9a-f]{64}"
CLAMP = "clamp:"
"""How keys of `outputs` begin that stand for layers rewritten to SOURCE_DATE_EPOCH: `clamp:EPOCH:DIFF_ID`."""


def blobs_in(table: Table, value: bytes) -> list[str]:
    """The digests, as `str(Digest)`, of all blobs that a record of this table names."""
    if table not in NAMING:
        return []
    if table == "builds":
        return _logs_of_failures(value)
    return [found.decode() for found in re.findall(_BLOB, value)]


def _logs_of_failures(value: bytes) -> list[str]:
    """Of a step that ended well the log belongs to its result, and goes with that."""
    from cache.build_record import BuildRecord

    build = BuildRecord.parse("", value)
    nodes = () if build is None else build.nodes
    return [str(node.log) for node in nodes if node.log is not None and node.status == "failed"]


def hashes_in(preimage: bytes) -> set[str]:
    """Everything that a record of `preimages` names: recipes, sources; none for a damaged one."""
    try:
        return {found.decode() for found in re.findall(_HASH, zlib.decompress(preimage))}
    except zlib.error:
        return set()


def layer_in(value: bytes) -> str:
    """The diff_id of the layer that a record of `results`, `layers`, `outputs` or `fetches` says, "" for none."""
    found = re.search(_LAYER, value)
    return "" if found is None else found[1].decode()
