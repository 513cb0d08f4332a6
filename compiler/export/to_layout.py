"""Images as OCI layouts, in a directory or as one tar."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.layout_tar import TarBlob, write_layout_tar
from cache.layout_writer import LayoutWriter
from cache.oci import REF_NAME
from compiler.export.destination import new_directory, open_output, writer
from compiler.export.exported import Exported
from compiler.export.manifest import build_manifest
from compiler.export.placing import pack_layers, place_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cache.digest import OciDigest
    from cache.oci import Descriptor
    from compiler.export.built import BuiltImage
    from compiler.export.compress import Blob, Compressor, Known
    from compiler.export.compression import Compression
    from compiler.export.manifest import BuiltManifest, ManifestStyle

CONTAINERD_NAME = "io.containerd.image.name"
"""The annotation with the whole name, as docker and BuildKit write it; REF_NAME has the tag alone."""


def is_directory(dest: str) -> bool:
    """Whether the user means a layout directory rather than one file."""
    return dest.endswith("/") or os.path.isdir(dest)


def write_layout(
    image: BuiltImage,
    directory: str,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
    report: Callable[[str], None],
) -> Exported:
    """Write a layout directory, or add the image to the one that is there. Raises EnvironmentProblem, UsageError."""
    if os.path.isdir(directory):
        return _write_into(directory, image, compressor, compression, style, report)
    with new_directory(directory) as temporary:
        return _write_into(temporary, image, compressor, compression, style, report)


def write_layout_archive(
    image: BuiltImage,
    dest: str,
    stdout: int,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
) -> Exported:
    """Write a layout as a tar; `-` is `stdout`."""
    with open_output(dest, stdout) as fd:
        blobs = pack_layers(image.layers, compressor, compression)
        built = build_manifest(image, [blob.descriptor for blob in blobs], style)
        write_layout_tar(writer(fd), tar_blobs(built, blobs), _named(image, built.descriptor))
    return exported(built, blobs)


def tar_blobs(built: BuiltManifest, layers: Sequence[Blob]) -> list[TarBlob]:
    """All blobs of an image."""
    found = [TarBlob(layer.descriptor.digest, layer.descriptor.size, layer.open_chunks) for layer in layers]
    for descriptor, data in ((built.config_descriptor, built.config), (built.descriptor, built.data)):
        found.append(TarBlob(descriptor.digest, descriptor.size, lambda data=data: [data]))  # type: ignore[misc]
    return found


def exported(built: BuiltManifest, layers: Sequence[Blob]) -> Exported:
    """What an archive holds: everything moved."""
    sizes = {layer.descriptor.digest: layer.descriptor.size for layer in layers}
    digest, media_type, size = built.descriptor.digest, built.descriptor.media_type, built.descriptor.size
    moved = sum(sizes.values()) + len(built.config)
    return Exported(built.config_descriptor.digest, digest, media_type, size, moved, len(sizes) + 1)


def _write_into(
    directory: str,
    image: BuiltImage,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
    report: Callable[[str], None],
) -> Exported:
    layout = _Layout(LayoutWriter(directory))
    placed = place_layers(image.layers, compressor, compression, layout, report)
    built = build_manifest(image, [one.descriptor for one in placed], style)
    for descriptor, data in ((built.config_descriptor, built.config), (built.descriptor, built.data)):
        layout.writer.add_blob(descriptor.digest, descriptor.size, [data])
    layout.writer.finish(_named(image, built.descriptor))
    return Exported(
        built.config_descriptor.digest,
        built.descriptor.digest,
        built.descriptor.media_type,
        built.descriptor.size,
        sum(one.descriptor.size for one in placed if one.moved),
        sum(one.moved for one in placed),
        sum(not one.moved for one in placed),
    )


class _Layout:
    """A layout as a place for blobs."""

    def __init__(self, layout: LayoutWriter) -> None:
        self.writer = layout

    def has(self, known: Known) -> bool:
        return self.writer.has_blob(known.descriptor.digest, known.descriptor.size)

    def put(self, digest: OciDigest, size: int, open_chunks: Callable[[], Iterable[bytes]]) -> None:
        self.writer.add_blob(digest, size, open_chunks())


def _named(image: BuiltImage, descriptor: Descriptor) -> list[Descriptor]:
    """One entry of index.json for each name of the image."""
    names = [name for name in image.names if name.tag]
    return [
        descriptor._replace(
            annotations=((CONTAINERD_NAME, str(name._replace(digest=None))), (REF_NAME, name.tag or ""))
        )
        for name in names
    ] or [descriptor]
