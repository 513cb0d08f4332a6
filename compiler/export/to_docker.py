"""Images as archives for `docker load` and `podman load`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.layout_tar import DockerImage, write_layout_tar
from cache.oci import REF_NAME
from compiler.export.destination import open_output, writer
from compiler.export.documents import build_documents
from compiler.export.placing import descriptors, pack_layers
from compiler.export.to_layout import CONTAINERD_NAME, archived, tar_blobs

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
        documents = build_documents([image], descriptors(blobs), style)
        entry = documents.top.descriptor
        # podman takes the name from REF_NAME, containerd and docker with its store from their own annotation.
        entries = [entry._replace(annotations=((CONTAINERD_NAME, str(tag)), (REF_NAME, str(tag)))) for tag in tags]
        layers = tuple(blobs[layer.diff_id].descriptor.digest for layer in image.layers)
        docker = DockerImage(documents.manifests[0].config_descriptor.digest, layers, tuple(map(str, tags)))
        write_layout_tar(writer(fd), tar_blobs(documents, blobs), entries or [entry], [docker])
    return archived(documents, blobs)
