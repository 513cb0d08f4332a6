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
    """docker: docker's media types instead of OCI's, which old registries and docker before 1.20 want."""

    docker: bool = False
    annotations: tuple[tuple[str, str], ...] = ()


def build_manifest(image: BuiltImage, layers: Sequence[Descriptor], style: ManifestStyle) -> BuiltManifest:
    """The manifest of an image whose layers, lowest first, have these forms, with OCI's media types."""
    config = image.config.to_json()
    config_descriptor = Descriptor(oci.DOCKER_CONFIG if style.docker else oci.OCI_CONFIG, sha256(config), len(config))
    forms = tuple(
        layer._replace(media_type=media_type(oci.compression(layer), style.docker), annotations=()) for layer in layers
    )
    kind = oci.DOCKER_MANIFEST if style.docker else oci.OCI_MANIFEST
    data = Manifest(config_descriptor, forms, kind, style.annotations).to_json()
    return BuiltManifest(data, Descriptor(kind, sha256(data), len(data), image.platform), config, config_descriptor)


def sha256(data: bytes) -> OciDigest:
    """The name of bytes in a manifest."""
    return OciDigest(f"sha256:{hashlib.sha256(data).hexdigest()}")
