"""Document: a JSON object from outside, read field by field with checked types and sizes."""

from __future__ import annotations

import json
from typing import NamedTuple

from cache.digest import OciDigest
from cache.errors import CorruptBlob

MOST_TEXT = 1 << 20
"""Characters of one string; a history line can hold a whole shell script, nothing holds a megabyte."""
MOST_ITEMS = 10_000
"""Entries of one list or mapping: twenty times the layers that overlayfs can stack."""
MOST_INTEGER = 2**63 - 1
"""What other programs of the image world can hold (int64)."""


def render(document: object) -> bytes:
    """The one JSON form that we write: compact, ASCII, keys in the order given; the same value gives the same bytes."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _whole(text: str) -> str:
    """Half a surrogate pair (`"\\ud800"`), which no encoder takes, becomes U+FFFD, as in Go."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Document(NamedTuple):
    """The fields of one JSON object, and what it is, for messages.

    An absent field and `null` mean the same, as they do to the Go programs that write these documents.
    Every reader raises CorruptBlob for a field of the wrong type or beyond its bound.
    """

    fields: dict[str, object]
    what: str

    @classmethod
    def parse(cls, data: bytes, what: str, most_bytes: int) -> Document:
        if len(data) > most_bytes:
            raise CorruptBlob(f"{what} has more than {most_bytes} bytes")
        try:
            value = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise CorruptBlob(f"{what} is not valid JSON") from None
        if not isinstance(value, dict):
            raise CorruptBlob(f"{what} is not a JSON object")
        return cls(value, what)

    def wrong(self, key: str, expected: str) -> CorruptBlob:
        return CorruptBlob(f"{self.what}: {key} is not {expected}")

    def text(self, key: str) -> str:
        """The string, `""` when absent."""
        value = self.fields.get(key)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > MOST_TEXT:
            raise self.wrong(key, "a string of bounded length")
        return _whole(value)

    def integer(self, key: str) -> int:
        """The whole number from 0 to MOST_INTEGER, 0 when absent."""
        value = self.fields.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_INTEGER:
            raise self.wrong(key, "a whole number from 0")
        return value

    def flag(self, key: str) -> bool:
        value = self.fields.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def digest(self, key: str) -> OciDigest:
        """The `sha256:…` digest; it must be there."""
        return OciDigest(self.text(key))

    def strings(self, key: str) -> tuple[str, ...]:
        """The list of strings, empty when absent."""
        value = self._list(key)
        if not all(isinstance(item, str) and len(item) <= MOST_TEXT for item in value):
            raise self.wrong(key, "a list of strings")
        return tuple(_whole(str(item)) for item in value)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """The mapping of strings to strings as pairs sorted by name, empty when absent."""
        child = self.child(key)
        return tuple(sorted((_whole(name), child.text(name)) for name in child.fields)) if child else ()

    def names(self, key: str) -> tuple[str, ...]:
        """The sorted keys of a mapping used as a set (`{"80/tcp": {}}`), empty when absent."""
        child = self.child(key)
        return tuple(sorted(map(_whole, child.fields))) if child else ()

    def child(self, key: str) -> Document | None:
        """The object below, None when absent."""
        value = self.fields.get(key)
        if value is None:
            return None
        if not isinstance(value, dict) or len(value) > MOST_ITEMS:
            raise self.wrong(key, "an object of bounded size")
        return Document(value, f"{self.what}: {key}")

    def children(self, key: str) -> list[Document]:
        """The list of objects below, empty when absent."""
        found = []
        for item in self._list(key):
            if not isinstance(item, dict):
                raise self.wrong(key, "a list of objects")
            found.append(Document(item, f"{self.what}: {key}"))
        return found

    def rest(self, known: frozenset[str]) -> tuple[tuple[str, str], ...]:
        """The fields beyond `known` as (name, JSON text), sorted by name."""
        return tuple((key, render(self.fields[key]).decode("ascii")) for key in sorted(self.fields) if key not in known)

    def _list(self, key: str) -> list[object]:
        value = self.fields.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise self.wrong(key, "a list of bounded length")
        return value
