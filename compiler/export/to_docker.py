"""Images as archives for `docker load` and `podman load`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.layout_tar import DockerImage, write_layout_tar
from cache.oci import REF_NAME
from compiler.export.destination import open_output, writer
from compiler.export.manifest import build_manifest
from compiler.export.placing import pack_layers
from compiler.export.to_layout import CONTAINERD_NAME, exported, tar_blobs

if TYPE_CHECKING:
    from compiler.export.built import BuiltImage
    from compiler.export.compress import Compressor
    from compiler.export.compression import Compression
    from compiler.export.exported import Exported
    from compiler.export.manifest import ManifestStyle


def write_docker_archive(
    image: BuiltImage,
    dest: str,
    stdout: int,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
) -> Exported:
    """Write an archive with `manifest.json` and, for newer tools, the layout of the same blobs."""
    tags = [name._replace(digest=None) for name in image.names if name.tag]
    with open_output(dest, stdout) as fd:
        blobs = pack_layers(image.layers, compressor, compression)
        built = build_manifest(image, [blob.descriptor for blob in blobs], style)
        # podman takes the name from REF_NAME, containerd and docker with its store from their own annotation.
        entries = [
            built.descriptor._replace(annotations=((CONTAINERD_NAME, str(tag)), (REF_NAME, str(tag)))) for tag in tags
        ] or [built.descriptor]
        layers = tuple(blob.descriptor.digest for blob in blobs)
        docker = DockerImage(built.config_descriptor.digest, layers, tuple(map(str, tags)))
        write_layout_tar(writer(fd), tar_blobs(built, blobs), entries, [docker])
    return exported(built, blobs)
