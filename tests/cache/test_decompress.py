"""Compressed layers: every format is told by its first bytes, and broken ones are refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from typing import TYPE_CHECKING

import pytest
import zstandard

from cache.decompress import decompress
from cache.errors import CorruptLayer

if TYPE_CHECKING:
    from collections.abc import Callable


def _zstd_frames(data: bytes) -> bytes:
    skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    return skippable + zstandard.compress(data[:1000]) + skippable + zstandard.compress(data[1000:])


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        gzip.compress,
        lambda data: gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:]) + bytes(100),
        zstandard.compress,
        _zstd_frames,
        bz2.compress,
        lambda data: bz2.compress(data[:1000]) + bz2.compress(data[1000:]),
        lzma.compress,
    ],
)
@pytest.mark.parametrize("cut", [1, 7, 4096, 1 << 30])
def test_decompress_tells_the_format_by_itself(pack: Callable[[bytes], bytes], cut: int) -> None:
    data = b"".join(b"line %d\n" % n for n in range(3000))
    packed = pack(data)
    assert b"".join(decompress(packed[at : at + cut] for at in range(0, len(packed), cut))) == data


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress])
def test_broken_compression_is_refused(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(os.urandom(5000))
    with pytest.raises(CorruptLayer, match="cut off"):
        list(decompress([packed[:-6]]))
    with pytest.raises(CorruptLayer, match=r"broken|cut off"):
        list(decompress([packed[:6] + bytes(byte ^ 255 for byte in packed[6:])]))
    with pytest.raises(CorruptLayer, match="something else follows"):
        list(decompress([packed + b"trailing garbage"]))


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda data: zstandard.compress(data, 19), bz2.compress, lzma.compress]
)
def test_bombs_come_in_pieces(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(64 << 20))
    total = 0
    for piece in decompress([bomb]):
        assert len(piece) <= 33 << 20
        total += len(piece)
    assert total == 64 << 20


def test_xz_with_a_huge_dictionary_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 300 << 20}]
    packed = lzma.compress(b"x", filters=filters)
    with pytest.raises(CorruptLayer, match="broken"):
        list(decompress([packed]))
