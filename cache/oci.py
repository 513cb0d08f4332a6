"""Manifests and indexes of images: media types, descriptors, reading untrusted ones, writing canonical ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.document import Document, render
from cache.errors import CorruptBlob, RemoteError
from cache.platform import Platform

if TYPE_CHECKING:
    from cache.digest import OciDigest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD = DOCKER_LAYER + ".zstd"

MANIFEST_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
"""What we ask for, in this order of preference."""
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that names an entry of an OCI layout by its tag."""

MOST_MANIFEST = 4 << 20
"""Bytes of a manifest or index: the limit that the distribution specification asks registries to keep."""
MOST_BLOB = 1 << 43
"""Bytes of a blob (8 TiB); a larger number in a descriptor is an attempt to overflow someone."""
MOST_LISTED = 20
"""Platforms or tags that an error lists before it says «…»."""

_COMPRESSION = {
    OCI_LAYER: "",
    DOCKER_LAYER: "",
    OCI_LAYER_GZIP: "gzip",
    DOCKER_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    DOCKER_LAYER_ZSTD: "zstd",
    # Layers that must not be pushed to other registries; they are fetched as all others.
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


class UnsupportedImage(RemoteError):
    """An image in a form that buildgraph does not read."""


class NoSuchPlatform(RemoteError):
    """An image is not there for the platform that was asked for."""


class Descriptor(NamedTuple):
    """What one document says of bytes elsewhere: their type, digest and size, and for what platform they are.

    annotations: (name, value) pairs sorted by name.
    """

    media_type: str
    digest: OciDigest
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    def annotation(self, name: str) -> str:
        """The value, `""` when there is none."""
        return dict(self.annotations).get(name, "")

    def to_dict(self) -> dict[str, object]:
        """The JSON form, in the field order of the image specification's Go types."""
        found: dict[str, object] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations))
        if self.platform:
            platform = self.platform
            fields = {
                "architecture": platform.architecture,
                "os": platform.os,
                "os.version": platform.os_version,
                "os.features": list(platform.os_features),
                "variant": platform.variant,
            }
            found["platform"] = {key: value for key, value in fields.items() if value}
        return found


class Manifest(NamedTuple):
    """One image: its config and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> bytes:
        document: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }
        return render(document | _annotations(self.annotations))


class Index(NamedTuple):
    """Several images under one name, usually one a platform."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> bytes:
        document: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_dict() for manifest in self.manifests],
        }
        return render(document | _annotations(self.annotations))


def parse_manifest(data: bytes, media_type: str = "", what: str = "the manifest") -> Manifest | Index:
    """Read a manifest or an index; `media_type` is what its sender called it, `""` when unknown.

    CorruptBlob for nonsense and for a document that can be read both ways (CVE-2021-41190);
    UnsupportedImage for docker's schema 1 and for media types that are no image.
    """
    document = Document.parse(data, what, MOST_MANIFEST)
    if document.integer("schemaVersion") == 1 or ".distribution.manifest.v1+" in media_type:
        raise UnsupportedImage(
            f"{what} is in docker's schema 1 format, which no registry has accepted for years",
            hint="push the image again with a current tool, or copy it with `skopeo copy --format v2s2`",
        )
    own = document.text("mediaType")
    if own and media_type in MANIFEST_TYPES and own != media_type:
        raise CorruptBlob(f"{what} says that it is {own[:100]!r}, its sender says {media_type!r}")
    image = "config" in document.fields or "layers" in document.fields
    if image == ("manifests" in document.fields):
        raise CorruptBlob(f"{what} is neither clearly an image nor clearly an index")
    # application/json, text/plain and the like say nothing; then the document's own word and its shape decide.
    kind = own or (media_type if media_type in MANIFEST_TYPES else OCI_MANIFEST if image else OCI_INDEX)
    if kind not in MANIFEST_TYPES:
        raise UnsupportedImage(f"{what} is of type {kind[:100]!r}, which is no container image")
    if image == (kind in INDEX_TYPES):
        raise CorruptBlob(f"{what} is called {kind!r} but has the fields of the other kind")
    annotations = document.pairs("annotations")
    if not image:
        return Index(tuple(map(_descriptor, document.children("manifests"))), kind, annotations)
    config = document.child("config")
    if config is None:
        raise document.wrong("config", "there")
    return Manifest(_descriptor(config), tuple(map(_descriptor, document.children("layers"))), kind, annotations)


def compression(layer: Descriptor) -> str:
    """`""`, `"gzip"` or `"zstd"`; UnsupportedImage for a media type that is no tar layer (encrypted, artifacts)."""
    found = _COMPRESSION.get(layer.media_type)
    if found is None:
        raise UnsupportedImage(f"a layer of type {layer.media_type[:100]!r} cannot be read")
    return found


def select(index: Index, platform: Platform, what: str = "the image") -> Descriptor:
    """The entry that runs best on the platform; the first one listed among equals.

    An entry without a platform is taken when no other fits. NoSuchPlatform lists the platforms that are there.
    """
    best: tuple[int, Descriptor] | None = None
    for entry in index.manifests:
        if entry.media_type not in MANIFEST_TYPES:
            continue
        distance = platform.distance(entry.platform) if entry.platform else 1 << 60
        if distance is not None and (best is None or distance < best[0]):
            best = distance, entry
    if best:
        return best[1]
    # Attestations stand in an index as images for unknown/unknown.
    there = sorted({str(entry.platform) for entry in index.manifests if entry.platform} - {"unknown/unknown"})
    listed = ", ".join(there[:MOST_LISTED]) + (", …" if len(there) > MOST_LISTED else "")
    raise NoSuchPlatform(f"{what} is not there for {platform}; it is there for: {listed or 'no platform'}")


def _descriptor(document: Document) -> Descriptor:
    size = document.integer("size")
    if size > MOST_BLOB:
        raise document.wrong("size", "a possible size")
    platform = None
    if child := document.child("platform"):
        platform = Platform.of(
            child.text("os"),
            child.text("architecture"),
            child.text("variant"),
            child.text("os.version"),
            child.strings("os.features"),
        )
    return Descriptor(
        document.text("mediaType"), document.digest("digest"), size, platform, document.pairs("annotations")
    )


def _annotations(pairs: tuple[tuple[str, str], ...]) -> dict[str, object]:
    return {"annotations": dict(sorted(pairs))} if pairs else {}
