"""Digest, the only name of a blob in here, and OciDigest, the name that images use outside."""

from __future__ import annotations

import re
from typing import NamedTuple

from blake3 import blake3

from cache.errors import CorruptBlob

_HEX64 = re.compile(r"[0-9a-f]{64}")


class Digest(NamedTuple):
    """BLAKE3-256 of some bytes as 64 lower-case hex digits, and their size in bytes."""

    hash: str
    size: int

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        return cls(blake3(data).hexdigest(), len(data))

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `HASH/SIZE`, as `str` writes it; ValueError for anything else."""
        hash_, _, size = text.partition("/")
        if not _HEX64.fullmatch(hash_) or not (size.isascii() and size.isdigit()):
            raise ValueError(f"not a digest: {text!r}")
        return cls(hash_, int(size))

    def __str__(self) -> str:
        return f"{self.hash}/{self.size}"


class OciDigest(str):
    """`sha256:` and 64 lower-case hex digits, as image manifests name bytes; refuses anything else.

    sha512 is allowed by the image specification but no registry in use serves it.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> OciDigest:
        algorithm, _, hexdigits = text.partition(":")
        if algorithm != "sha256" or not _HEX64.fullmatch(hexdigits):
            raise CorruptBlob(f"not a sha256 digest: {text[:100]!r}")
        return super().__new__(cls, text)

    @property
    def hex(self) -> str:
        return self[7:]
