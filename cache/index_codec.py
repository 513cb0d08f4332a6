"""How an Index is stored: columns of JSON, compressed with zstd, and checked in full when they are read."""

from __future__ import annotations

import base64
import binascii
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import zstandard

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FILE, HARDLINK, KINDS, OPAQUE, SYMLINK, Entry
from cache.errors import CorruptBlob, CorruptLayer
from cache.index import MAX_SMALL, SMALL_PATHS, Index
from cache.xattr import MAX_VALUE, is_kept

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
"""Of the encoding. An index of another version is made again from its tar."""
MAX_JSON = 256 << 20
"""Bytes of JSON that are unpacked: room for about two million entries; ten times the largest image seen has."""

MAX_NAME_LENGTH = 255
"""Characters of one name: no filesystem takes more bytes. Bytes are counted where a name is used."""

_LEVEL = 3
_MAX_ID = 0xFFFFFFFF
_MAX_SIZE = 1 << 62
_MAX_DEVICE = 0xFFFFF
_HEX_DIGITS = b"0123456789abcdef"


def encode(index: Index) -> bytes:
    """One list a field: that compresses to half of one list an entry, and is read five times as fast."""
    entries = index.entries
    files = [entry for entry in entries if entry.kind == FILE]
    document = {
        "version": VERSION,
        "path": [entry.path for entry in entries],
        "kind": "".join([entry.kind for entry in entries]),
        "mode": [entry.mode for entry in entries],
        "uid": [entry.uid for entry in entries],
        "gid": [entry.gid for entry in entries],
        "mtime": [entry.mtime for entry in entries],
        "size": [entry.size for entry in files],
        "offset": [entry.offset for entry in files],
        "digest": "".join([entry.digest for entry in files]),
        "link": [entry.link for entry in entries if entry.kind in (SYMLINK, HARDLINK)],
        "device": [n for entry in entries if entry.kind in (CHARACTER, BLOCK) for n in (entry.major, entry.minor)],
        "xattrs": [
            [row, [[name, _text(value)] for name, value in entry.xattrs]]
            for row, entry in enumerate(entries)
            if entry.xattrs
        ],
        "small": [[path, _text(index.small[path])] for path in sorted(index.small)],
    }
    return zstandard.compress(json.dumps(document, separators=(",", ":")).encode("ascii"), _LEVEL)


def decode(data: bytes) -> Index:
    """The index that `encode` was given; CorruptBlob for anything that no writer of ours would have written."""
    try:
        if not 0 <= zstandard.frame_content_size(data) <= MAX_JSON:
            raise ValueError("it is too large")
        document = json.loads(zstandard.decompress(data, MAX_JSON))
        index = _read(document)
        _check(index)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, MemoryError, StopIteration) as error:
        raise CorruptBlob(f"a layer's index cannot be read: {error}") from error
    except (zstandard.ZstdError, CorruptLayer) as error:
        raise CorruptBlob(f"a layer's index cannot be read: {error}") from error
    return index


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _bytes(text: object, limit: int) -> bytes:
    if not isinstance(text, str) or len(text) > limit * 2:
        raise ValueError("bad bytes")
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("bad bytes") from error
    if len(value) > limit:
        raise ValueError("too many bytes")
    return value


def _numbers(document: dict[str, Any], key: str, count: int, low: int, high: int) -> list[int]:
    column = document[key]
    if type(column) is not list or len(column) != count:
        raise ValueError(f"{key} has another length")
    if count and (set(map(type, column)) != {int} or min(column) < low or max(column) > high):
        raise ValueError(f"{key} has a value that cannot be")
    return column


def _strings(document: dict[str, Any], key: str, count: int) -> list[str]:
    column = document[key]
    if type(column) is not list or len(column) != count or not set(map(type, column)) <= {str}:
        raise ValueError(f"{key} is not {count} strings")
    return column


def _read(document: dict[str, Any]) -> Index:
    if type(document) is not dict or document.get("version") != VERSION:
        raise ValueError("it is of another version")
    kinds = document["kind"]
    if type(kinds) is not str or not set(kinds) <= set(KINDS):
        raise ValueError("kind has a value that cannot be")
    count = len(kinds)
    files = kinds.count(FILE)
    digests = document["digest"]
    if type(digests) is not str or len(digests) != files * 64 or digests.encode().translate(None, _HEX_DIGITS):
        raise ValueError("digest has a value that cannot be")
    digest = iter([digests[at : at + 64] for at in range(0, len(digests), 64)])
    size = iter(_numbers(document, "size", files, 0, _MAX_SIZE))
    offsets = _numbers(document, "offset", files, 0, _MAX_SIZE)
    if any(offset & 511 for offset in offsets):
        raise ValueError("offset has a value that cannot be")
    offset = iter(offsets)
    link = iter(_strings(document, "link", kinds.count(SYMLINK) + kinds.count(HARDLINK)))
    device = iter(_numbers(document, "device", 2 * (kinds.count(CHARACTER) + kinds.count(BLOCK)), 0, _MAX_DEVICE))
    xattrs = _read_xattrs(document["xattrs"], count)
    rows: list[tuple[Any, ...]] = []
    columns = zip(
        _strings(document, "path", count),
        kinds,
        _numbers(document, "mode", count, 0, 0o7777),
        _numbers(document, "uid", count, 0, _MAX_ID),
        _numbers(document, "gid", count, 0, _MAX_ID),
        _numbers(document, "mtime", count, -_MAX_SIZE, _MAX_SIZE),
        _per_row(xattrs, count),
        strict=True,
    )
    for path, kind, mode, uid, gid, mtime, attributes in columns:
        if kind == FILE:
            data = (next(size), next(offset), next(digest), "", 0, 0)
        elif kind in (SYMLINK, HARDLINK):
            data = (0, 0, "", next(link), 0, 0)
        elif kind in (CHARACTER, BLOCK):
            data = (0, 0, "", "", next(device), next(device))
        else:
            data = (0, 0, "", "", 0, 0)
        rows.append((path, kind, mode, uid, gid, mtime, *data, attributes))
    small = {path: _bytes(value, MAX_SMALL) for path, value in document["small"]}
    if not small.keys() <= SMALL_PATHS:
        raise ValueError("it carries bytes that it should not")
    # Entry's own constructor is Python code; this one is not, and halves the time.
    return Index(map(partial(tuple.__new__, Entry), rows), small)


def _read_xattrs(rows: list[Any], count: int) -> dict[int, tuple[tuple[str, bytes], ...]]:
    xattrs = {}
    for row, pairs in rows:
        if type(row) is not int or not 0 <= row < count or row in xattrs:
            raise ValueError("xattrs has a value that cannot be")
        attributes = tuple((name, _bytes(value, MAX_VALUE)) for name, value in pairs)
        names = [name for name, _ in attributes]
        if not all(type(name) is str and is_kept(name) for name in names):
            raise ValueError("xattrs has a name that no layer may set")
        if names != sorted(set(names)):
            raise ValueError("xattrs are not sorted")
        xattrs[row] = attributes
    return xattrs


def _per_row(xattrs: dict[int, tuple[tuple[str, bytes], ...]], count: int) -> Iterator[tuple[tuple[str, bytes], ...]]:
    if not xattrs:
        return iter([()] * count)
    return (xattrs.get(row, ()) for row in range(count))


def _check(index: Index) -> None:
    """The invariants of Index, and names that the kernel takes; ValueError or CorruptLayer."""
    entries = index.entries
    plain = [entry.path for entry in entries if entry.kind != OPAQUE]
    if len(plain) != len(set(plain)) or len(plain) + len(index.opaque) != len(entries):
        raise ValueError("a path stands there twice")
    root = entries and not entries[0].path
    # Searches in one long string: a regular expression took longer than all the rest.
    joined = "/" + "/".join([entry.path for entry in entries if entry.path]) + "/"
    if "\0" in joined or "/./" in joined or "/../" in joined or ("//" in joined and joined != "//"):
        raise ValueError("a path is malformed")
    if max(map(len, joined.split("/"))) > MAX_NAME_LENGTH:
        raise ValueError("a name is too long")
    _check_text(joined)
    if root and entries[0].kind not in (DIRECTORY, OPAQUE):
        raise ValueError("the root is not a directory")
    for entry in entries:
        if entry.kind == SYMLINK and (not entry.link or "\0" in entry.link):
            raise ValueError(f"the symlink {entry.path!r} leads nowhere")
        if entry.kind == HARDLINK:
            first = index.get(entry.link)
            if first is None or first.kind in (DIRECTORY, HARDLINK) or first.path >= entry.path:
                raise ValueError(f"the hardlink {entry.path!r} has no file")
    _check_text("\0".join([entry.link for entry in entries if entry.link]))
    for path in index.parents.union(index.implied):
        found = index.get(path)
        if found is not None and found.kind != DIRECTORY:
            raise ValueError(f"an entry stands below {path!r}, which is no directory")
    if not index.whiteouts.isdisjoint(index.implied):
        raise ValueError("a path is both removed and present")
    for path in index.small:
        entry_there = index.get(path)
        if entry_there is None or entry_there.kind != FILE or entry_there.size != len(index.small[path]):
            raise ValueError(f"it carries other bytes for {path!r} than the layer has")


def _check_text(text: str) -> None:
    """Only what decoding some bytes gives, so that two spellings cannot stand for one name."""
    if not text.isascii() and text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") != text:
        raise ValueError("a name is not text that bytes can spell")
