"""Pushing images to registries, moving only what is not there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cache.registry_errors import RegistryDenied
from compiler.export.documents import build_documents
from compiler.export.placing import all_layers, descriptors, place_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cache.digest import OciDigest
    from cache.images import Images
    from cache.oci import Descriptor
    from cache.registry import Registry
    from compiler.export.built import BuiltImage
    from compiler.export.compress import Compressor, Known
    from compiler.export.compression import Compression
    from compiler.export.documents import Document
    from compiler.export.exported import Exported
    from compiler.export.manifest import ManifestStyle

MOST_MOUNTS = 3
"""Repositories that a blob is tried to be taken over from: each costs a request, and the first has it nearly always."""
MOST_ORIGINS = 8
"""Places remembered of one form; a layer of a common base is pushed to any number of repositories."""


def push_images(
    images: Sequence[BuiltImage],
    store: Images,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
    report: Callable[[str], None],
    *,
    by_digest: bool = False,
) -> Exported:
    """Push under every name of the first image, at least one: an image, or an index of several.

    What a name means comes last, so that none points at half an image. by_digest: set no tags. Raises RemoteError.
    """
    names = images[0].names
    pushed: list[Exported] = []
    places = dict.fromkeys((name.host, name.repository) for name in names)
    for host, repository in places:
        tags = [name.tag for name in names if (name.host, name.repository) == (host, repository) and name.tag]
        place = _Repository(store.registry(host), repository)
        report(f"pushing to {host}/{repository}")
        pushed.append(_push(images, place, compressor, compression, style, report, [] if by_digest else tags))
    return pushed[0]._replace(
        moved_bytes=sum(one.moved_bytes for one in pushed),
        moved_blobs=sum(one.moved_blobs for one in pushed),
        skipped=sum(one.skipped for one in pushed),
    )


def _push(
    images: Sequence[BuiltImage],
    place: _Repository,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
    report: Callable[[str], None],
    tags: list[str],
) -> Exported:
    layers = {layer.diff_id: layer for layer in all_layers(images)}
    placed = place_layers(layers.values(), compressor, compression, place, report)
    for diff_id, one in placed.items():
        known = compressor.known(layers[diff_id], compression)
        origins = known.origins if known is not None else ()
        if place.origin not in origins and len(origins) < MOST_ORIGINS:
            compressor.remember(layers[diff_id], one.descriptor, place.origin)
    documents = build_documents(images, descriptors(placed), style)
    moved = [one.descriptor.size for one in placed.values() if one.moved]
    skipped = len(placed) - len(moved)
    for config in documents.configs():
        if place.has_blob(config.descriptor):
            skipped += 1
        else:
            place.put(config.descriptor.digest, config.descriptor.size, partial(list, [config.data]))
            moved.append(config.descriptor.size)
    for manifest in documents.children():
        place.name(manifest.descriptor.digest, manifest)
    for tag in tags or [documents.top.descriptor.digest]:
        place.name(tag, documents.top)
    return documents.exported(moved, skipped)


class _Repository:
    """A repository as a place for blobs."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self.origin = f"{registry.host}/{repository}"

    def has(self, known: Known) -> bool:
        return self.has_blob(known.descriptor) or self._mount(known)

    def has_blob(self, descriptor: Descriptor) -> bool:
        try:
            return self._registry.has_blob(self._repository, descriptor.digest)
        except RegistryDenied:
            return False  # some answer so for a repository that will exist after the first push; it decides

    def _mount(self, known: Known) -> bool:
        host = f"{self._registry.host}/"
        there = [origin.removeprefix(host) for origin in known.origins if origin.startswith(host)]
        others = [repository for repository in there if repository != self._repository]
        digest = known.descriptor.digest
        return any(self._registry.mount_blob(self._repository, digest, other) for other in others[:MOST_MOUNTS])

    def put(self, digest: OciDigest, size: int, open_chunks: Callable[[], Iterable[bytes]]) -> None:
        self._registry.upload_blob(self._repository, digest, size, open_chunks)

    def name(self, reference: str, document: Document) -> None:
        """Have a tag or digest mean the manifest or index."""
        try:
            there = self._registry.head_manifest(self._repository, reference)
        except RegistryDenied:
            there = None
        if there is None or there.digest != document.descriptor.digest:
            self._registry.put_manifest(self._repository, reference, document.data, document.descriptor.media_type)
