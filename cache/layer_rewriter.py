"""Rewriting a layer: the same entries with other metadata, as a new tar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.entry import FILE
from cache.layer_writer import LayerTar, LayerWriter

if TYPE_CHECKING:
    from cache.index import Index


def clamp(index: Index, tar_fd: int, out_fd: int, latest: int) -> LayerTar:
    """Write the layer with no modification time after `latest` (seconds since the epoch) to an empty file.

    This is what SOURCE_DATE_EPOCH asks for. The data is verified against the index on the way: EnvironmentProblem if
    the tar has other data.
    """
    writer = LayerWriter(out_fd)
    for entry in index.entries:
        clamped = entry._replace(mtime=min(entry.mtime, latest))
        if entry.kind == FILE:
            writer.add_file(clamped, tar_fd, entry.offset)
        else:
            writer.add(clamped)
    return writer.finish()
