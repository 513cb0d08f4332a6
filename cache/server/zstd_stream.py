"""ZstdStream: unpacks a stream of zstd frames of unknown honesty, with bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zstandard

from cache.server.refusal import invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WINDOW = 32 << 20
"""Bytes that zstd may look back: its levels up to 20 need no more, and each stream may cost as much."""
_INPUT = 1 << 10
"""Bytes that zstd is fed at once: they make 32 MiB at the very worst, a block of 128 KiB from each four."""


class ZstdStream:
    """limit: bytes that may come out; more are refused as soon as they do."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._frame: zstandard.ZstdDecompressionObj | None = None

    @property
    def whole(self) -> bool:
        """The last frame has ended."""
        return self._frame is None or self._frame.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out, in pieces. Raises Refused."""
        rest = memoryview(data)
        while rest:
            if self._frame is None or self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
            fed, rest = rest[:_INPUT], rest[_INPUT:]
            try:
                piece = self._frame.decompress(fed)
            except zstandard.ZstdError as error:
                text = f"the data is no zstd that this server takes (window up to {MAX_WINDOW} bytes): {error}"
                raise invalid(text) from None
            self._left -= len(piece)
            if self._left < 0:
                raise invalid(f"the data unpacks to more than the {self._limit} bytes that its digest says")
            if piece:
                yield piece
            if self._frame.eof and self._frame.unused_data:
                # A view of what was not used, not a copy of it: many small frames would cost their square.
                rest = memoryview(data)[len(data) - len(rest) - len(self._frame.unused_data) :]


def unpack(data: bytes, size: int) -> bytes:
    """All of a small blob. Raises Refused."""
    stream = ZstdStream(size)
    unpacked = b"".join(stream.feed(data))
    if not stream.whole:
        raise invalid("the zstd data ends too early")
    return unpacked
