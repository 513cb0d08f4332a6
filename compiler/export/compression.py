"""Compression: how layers are packed when they leave, so that the same tar always gives the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache import oci

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK = 1 << 20
"""Bytes that a compressor is fed at once. isal's output depends on how its input is cut, so this never changes."""
DEFAULT_LEVELS = {"": 0, "gzip": 2, "zstd": 3}
"""isal's level 2 makes 350-500 MB/s and zlib's size of level 4; zstd 3 is everybody's default."""
_MOST_ISAL = 3
"""isal has levels 0 to 3; from there on zlib packs smaller."""

_MEDIA_TYPES = {"": oci.OCI_LAYER, "gzip": oci.OCI_LAYER_GZIP, "zstd": oci.OCI_LAYER_ZSTD}
_DOCKER_TYPES = {"": oci.DOCKER_LAYER, "gzip": oci.DOCKER_LAYER_GZIP}


class Compression(NamedTuple):
    """kind: "", gzip or zstd. forced: layers that came in another form are packed anew, else they keep it."""

    kind: str = "gzip"
    level: int = DEFAULT_LEVELS["gzip"]
    forced: bool = False

    @classmethod
    def of(cls, kind: str, level: int | None = None, forced: bool = False) -> Compression:
        return cls(kind, DEFAULT_LEVELS[kind] if level is None else level, forced)

    @property
    def usual(self) -> bool:
        """Whether the level is the default, so that a digest that is remembered without one fits."""
        return self.level == DEFAULT_LEVELS[self.kind]

    def pack(self, blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
        """Compress a tar of `size` bytes, given in pieces of BLOCK bytes but for the last; some pieces are empty."""
        if not self.kind:
            yield from blocks
            return
        packer = self._packer(size)
        for block in blocks:
            yield packer.compress(block)
        yield packer.flush()

    def _packer(self, size: int) -> _Packer:
        if self.kind == "zstd":
            import zstandard

            return zstandard.ZstdCompressor(level=self.level).compressobj(size=size)
        # 16 more than the window bits ask for a gzip header; it has no time and no name.
        if self.level <= _MOST_ISAL:
            from isal import isal_zlib

            return isal_zlib.compressobj(self.level, isal_zlib.DEFLATED, 16 + isal_zlib.MAX_WBITS)
        import zlib

        return zlib.compressobj(self.level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def media_type(kind: str, docker: bool = False) -> str:
    """The media type of a layer that is packed like this; docker's own types know no zstd."""
    return (_DOCKER_TYPES if docker else _MEDIA_TYPES)[kind]
