"""Documents: all of an output that stands above its layers: configs, manifests and the index of several images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.oci import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, Descriptor, Index
from compiler.export.exported import Exported
from compiler.export.manifest import BuiltManifest, build_manifest, sha256

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from compiler.export.built import BuiltImage
    from compiler.export.manifest import ManifestStyle


class Document(NamedTuple):
    """Bytes of JSON, and how others name them."""

    descriptor: Descriptor
    data: bytes


class Documents(NamedTuple):
    """manifests: one for each image, in the order given. image_index: of all of them; None for a single image."""

    manifests: tuple[BuiltManifest, ...]
    image_index: Document | None = None

    @property
    def top(self) -> Document:
        """What the names of the output mean: the index, or the only manifest."""
        return self.image_index or _manifest(self.manifests[0])

    def configs(self) -> Iterator[Document]:
        return (Document(one.config_descriptor, one.config) for one in self.manifests)

    def children(self) -> Iterator[Document]:
        """The manifests that the index names; none for a single image."""
        return map(_manifest, self.manifests if self.image_index else ())

    def all(self) -> Iterator[Document]:
        """Each after those that it names."""
        yield from self.configs()
        yield from self.children()
        yield self.top

    def exported(self, moved: Collection[int], skipped: int) -> Exported:
        """moved: bytes of every blob that moved. skipped: the number of the others."""
        media_type, digest, size = self.top.descriptor[:3]
        config = "" if self.image_index else self.manifests[0].config_descriptor.digest
        return Exported(config, digest, media_type, size, sum(moved), len(moved), skipped)


def build_documents(images: Sequence[BuiltImage], forms: Mapping[str, Descriptor], style: ManifestStyle) -> Documents:
    """The documents of one image, or of several that differ in their platform.

    forms: what each layer is by its diff_id, with OCI's media types. The index is docker's if all manifests are.
    """
    manifests = tuple(
        build_manifest(image, [forms[layer.diff_id] for layer in image.layers], style) for image in images
    )
    if len(manifests) == 1 and not style.always_index:
        return Documents(manifests)
    docker = style.docker and all(one.descriptor.media_type == DOCKER_MANIFEST for one in manifests)
    kind = DOCKER_INDEX if docker else OCI_INDEX
    data = Index(tuple(one.descriptor for one in manifests), kind, style.index_annotations).to_json()
    return Documents(manifests, Document(Descriptor(kind, sha256(data), len(data)), data))


def _manifest(built: BuiltManifest) -> Document:
    return Document(built.descriptor, built.data)
