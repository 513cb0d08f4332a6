"""BuiltManifest: the manifest and config of an image, as bytes with their descriptors."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cache import oci
from cache.digest import OciDigest
from cache.oci import Descriptor, Manifest
from compiler.export.compression import media_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.export.built import BuiltImage


class BuiltManifest(NamedTuple):
    """descriptor: of the manifest, with the image's platform."""

    data: bytes
    descriptor: Descriptor
    config: bytes
    config_descriptor: Descriptor


class ManifestStyle(NamedTuple):
    """docker: docker's media types instead of OCI's, for old registries; not where a layer is zstd, which has none.

    annotations: of every manifest; index_annotations: of the index over several. always_index: one image gets one too.
    """

    docker: bool = False
    annotations: tuple[tuple[str, str], ...] = ()
    index_annotations: tuple[tuple[str, str], ...] = ()
    always_index: bool = False


def build_manifest(image: BuiltImage, layers: Sequence[Descriptor], style: ManifestStyle) -> BuiltManifest:
    """The manifest of an image whose layers, lowest first, have these forms, with OCI's media types."""
    kinds = [oci.compression(layer) for layer in layers]
    docker = style.docker and "zstd" not in kinds
    config = image.config.to_json()
    config_descriptor = Descriptor(oci.DOCKER_CONFIG if docker else oci.OCI_CONFIG, sha256(config), len(config))
    forms = tuple(
        Descriptor(media_type(kind, docker), layer.digest, layer.size)
        for kind, layer in zip(kinds, layers, strict=True)
    )
    kind = oci.DOCKER_MANIFEST if docker else oci.OCI_MANIFEST
    data = Manifest(config_descriptor, forms, kind, style.annotations).to_json()
    return BuiltManifest(data, Descriptor(kind, sha256(data), len(data), image.platform), config, config_descriptor)


def sha256(data: bytes) -> OciDigest:
    """The name of bytes in a manifest."""
    return OciDigest(f"sha256:{hashlib.sha256(data).hexdigest()}")
