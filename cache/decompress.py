"""Decompress: the bytes of a layer or archive, whatever it was compressed with."""

from __future__ import annotations

import bz2
import lzma
import re
from typing import TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip_lib

from cache.errors import CorruptLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PIECE = 1 << 20
"""Bytes that are unpacked at once: a hostile archive of a few kilobytes may hold gigabytes."""
MAX_MEMORY = 256 << 20
"""Bytes that xz may take; its strongest setting needs 65 MiB."""
MAX_WINDOW = 128 << 20
"""Bytes that zstd may look back; `--ultra -22` needs as many, `--long=31` would need 2 GiB."""

_MAGIC_SIZE = 6
# Its stubs call it an instance.
_ISAL_ERROR = cast("type[Exception]", igzip_lib.error)
_ZSTD_INPUT = 1 << 10
"""Bytes that zstd is fed at once: they make 32 MiB at the very worst, a block of 128 KiB from each four."""


class _Decompressor(Protocol):
    """One stream of a format; what bz2, lzma and isal have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip() -> _Decompressor:
    return igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)


class _Zstd:
    """zstandard's stream with a bound on what comes out at once, which it has not itself."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
        self._data = memoryview(b"")

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._data and not self.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data + bytes(self._data)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if data:
            self._data = memoryview(data)
        pieces: list[bytes] = []
        size = 0
        while self._data and not self.eof and size < max_length:
            piece = self._stream.decompress(self._data[:_ZSTD_INPUT])
            self._data = self._data[_ZSTD_INPUT:]
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)


_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[], _Decompressor]], ...] = (
    (re.compile(rb"\x1f\x8b"), _gzip),
    # A frame, or one without content (RFC 8878, 3.1.2).
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _Zstd),
    (re.compile(rb"BZh"), bz2.BZ2Decompressor),
    (re.compile(rb"\xfd7zXZ\0"), _xz),
)


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack gzip, zstd, bzip2 and xz, told by their first bytes and in any number of streams; pass on the rest.

    Pieces have about PIECE bytes at most, except those that are passed on. CorruptLayer for broken data.
    """
    source = filter(None, chunks)
    start = b""
    for chunk in source:
        start += chunk
        if len(start) >= _MAGIC_SIZE:
            break
    for magic, make in _FORMATS:
        if magic.match(start):
            yield from _unpack(make, magic, start, source)
            return
    if start:
        yield start
    yield from source


def _unpack(
    make: Callable[[], _Decompressor], magic: re.Pattern[bytes], start: bytes, source: Iterator[bytes]
) -> Iterator[bytes]:
    data = start
    while True:
        stream = make()
        while not stream.eof:
            try:
                piece = stream.decompress(data, PIECE)
            except (_ISAL_ERROR, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise CorruptLayer(f"the layer's compressed data is broken: {error}") from error
            data = b""
            if piece:
                yield piece
            if stream.needs_input and not stream.eof:
                data = next(source, b"")
                if not data:
                    raise CorruptLayer("the layer's compressed data is cut off")
        # Zeros pad an archive to the size of a tape's block.
        data = stream.unused_data.lstrip(b"\0")
        while len(data) < _MAGIC_SIZE and (chunk := next(source, b"")):
            data = (data + chunk).lstrip(b"\0")
        if not data:
            return
        if not magic.match(data):
            raise CorruptLayer("something else follows the compressed data of the layer")
