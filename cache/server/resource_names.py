"""Resource names: how ByteStream says which blob, in what form, of which namespace."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cache.server.namespaces import checked_namespace
from cache.server.refusal import invalid
from cache.server.wire_digest import checked_name

if TYPE_CHECKING:
    from cache.server.wire_digest import Function

MAX_NAME = 1000
"""Characters."""
_UPLOAD = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A UUID, says the API; some clients add to it."""
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_OTHERS = ("sha1", "md5", "vso", "sha384", "sha512", "murmur3", "sha256tree", "gitsha1")
_READ = "[INSTANCE/]blobs/[blake3/]HASH/SIZE, or compressed-blobs/zstd/ for blobs/"
_WRITE = "[INSTANCE/]uploads/UUID/blobs/[blake3/]HASH/SIZE, or compressed-blobs/zstd/ for blobs/"


class ResourceName(NamedTuple):
    """blob: `HASH/SIZE` of the uncompressed bytes under the function. upload: what tells uploads of one blob apart, ""
    for reading."""

    namespace: str
    function: Function
    blob: str
    zstd: bool
    upload: str = ""


def parse_read(text: str) -> ResourceName:
    """Raises Refused."""
    parts = _parts(text, _READ)
    start = next((i for i, part in enumerate(parts) if part in ("blobs", "compressed-blobs")), None)
    if start is None:
        raise _wrong(text, _READ)
    function, blob, zstd, rest = _blob(text, parts[start:], _READ)
    if rest:
        raise _wrong(text, _READ)
    return ResourceName(checked_namespace("/".join(parts[:start])), function, blob, zstd)


def parse_write(text: str) -> ResourceName:
    """Whatever stands behind the size is for people and left out. Raises Refused."""
    parts = _parts(text, _WRITE)
    start = parts.index("uploads") if "uploads" in parts else len(parts)
    if len(parts) < start + 4 or not _UPLOAD.fullmatch(parts[start + 1]):
        raise _wrong(text, _WRITE)
    function, blob, zstd, _ = _blob(text, parts[start + 2 :], _WRITE)
    return ResourceName(checked_namespace("/".join(parts[:start])), function, blob, zstd, parts[start + 1])


def _parts(text: str, form: str) -> list[str]:
    if len(text) > MAX_NAME or text.startswith("/"):
        raise _wrong(text, form)
    return text.split("/")


def _blob(text: str, parts: list[str], form: str) -> tuple[Function, str, bool, list[str]]:
    """(function, blob, whether it is compressed, what stands behind)."""
    zstd = parts[0] == "compressed-blobs"
    if parts[0] not in ("blobs", "compressed-blobs"):
        raise _wrong(text, form)
    rest = parts[1:]
    if zstd:
        if rest[:1] != ["zstd"]:
            raise invalid(f"this server compresses by zstd, not by {rest[0][:20]!r}" if rest else f"a name is {form}")
        rest = rest[1:]
    function: Function = "sha256"
    if rest[:1] == ["blake3"]:
        function, rest = "blake3", rest[1:]
    elif rest and rest[0] in _OTHERS:
        raise invalid(f"this server names blobs by SHA256 or BLAKE3, not by {rest[0]}")
    if len(rest) < 2 or not _SIZE.fullmatch(rest[1]):
        raise _wrong(text, form)
    return function, checked_name(rest[0], int(rest[1])), zstd, rest[2:]


def _wrong(text: str, form: str) -> Exception:
    return invalid(f"a resource name is {form}; this one is {text[:200]!r}")
