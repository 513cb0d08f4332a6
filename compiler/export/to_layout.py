"""Images as OCI layouts, in a directory or as one tar."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from cache.layout_tar import TarBlob, write_layout_tar
from cache.layout_writer import LayoutWriter
from cache.oci import REF_NAME
from compiler.export.destination import new_directory, open_output, writer
from compiler.export.documents import build_documents
from compiler.export.placing import all_layers, descriptors, pack_layers, place_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cache.digest import OciDigest
    from cache.oci import Descriptor
    from cache.reference import Reference
    from compiler.export.built import BuiltImage
    from compiler.export.compress import Blob, Compressor, Known
    from compiler.export.compression import Compression
    from compiler.export.documents import Documents
    from compiler.export.exported import Exported
    from compiler.export.manifest import ManifestStyle

CONTAINERD_NAME = "io.containerd.image.name"
"""The annotation with the whole name, as docker and BuildKit write it; REF_NAME has the tag alone."""


def is_directory(dest: str) -> bool:
    """Whether the user means a layout directory rather than one file."""
    return dest.endswith("/") or os.path.isdir(dest)


def write_layout(
    images: Sequence[BuiltImage],
    directory: str,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
    report: Callable[[str], None],
) -> Exported:
    """Write a layout directory, or add to the one that is there. Raises EnvironmentProblem, UsageError."""
    if os.path.isdir(directory):
        return _write_into(directory, images, compressor, compression, style, report)
    with new_directory(directory) as temporary:
        return _write_into(temporary, images, compressor, compression, style, report)


def write_layout_archive(
    images: Sequence[BuiltImage],
    dest: str,
    stdout: int,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
) -> Exported:
    """Write a layout as a tar; `-` is `stdout`."""
    with open_output(dest, stdout) as fd:
        blobs = pack_layers(all_layers(images), compressor, compression)
        documents = build_documents(images, descriptors(blobs), style)
        entries = _named(images[0].names, documents.top.descriptor)
        write_layout_tar(writer(fd), tar_blobs(documents, blobs), entries)
    return archived(documents, blobs)


def tar_blobs(documents: Documents, layers: Mapping[str, Blob]) -> list[TarBlob]:
    """All blobs of an archive."""
    found = [TarBlob(layer.descriptor.digest, layer.descriptor.size, layer.open_chunks) for layer in layers.values()]
    for document in documents.all():
        found.append(TarBlob(document.descriptor.digest, document.descriptor.size, partial(list, [document.data])))
    return found


def archived(documents: Documents, layers: Mapping[str, Blob]) -> Exported:
    """What an archive holds: everything moved."""
    sizes = {layer.descriptor.digest: layer.descriptor.size for layer in layers.values()}
    sizes |= {config.descriptor.digest: config.descriptor.size for config in documents.configs()}
    return documents.exported(sizes.values(), 0)


def _write_into(
    directory: str,
    images: Sequence[BuiltImage],
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
    report: Callable[[str], None],
) -> Exported:
    layout = _Layout(LayoutWriter(directory))
    placed = place_layers(all_layers(images), compressor, compression, layout, report)
    documents = build_documents(images, descriptors(placed), style)
    for descriptor, data in documents.all():
        layout.writer.add_blob(descriptor.digest, descriptor.size, [data])
    layout.writer.finish(_named(images[0].names, documents.top.descriptor))
    moved = [one.descriptor.size for one in placed.values() if one.moved]
    return documents.exported(moved, len(placed) - len(moved))


class _Layout:
    """A layout as a place for blobs."""

    def __init__(self, layout: LayoutWriter) -> None:
        self.writer = layout

    def has(self, known: Known) -> bool:
        return self.writer.has_blob(known.descriptor.digest, known.descriptor.size)

    def put(self, digest: OciDigest, size: int, open_chunks: Callable[[], Iterable[bytes]]) -> None:
        self.writer.add_blob(digest, size, open_chunks())


def _named(names: Sequence[Reference], descriptor: Descriptor) -> list[Descriptor]:
    """One entry of index.json for each name."""
    return [
        descriptor._replace(
            annotations=((CONTAINERD_NAME, str(name._replace(digest=None))), (REF_NAME, name.tag or ""))
        )
        for name in names
        if name.tag
    ] or [descriptor]
