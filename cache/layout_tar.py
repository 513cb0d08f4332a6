"""An OCI layout as one tar stream, for `--output type=oci` and `type=docker`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cache.document import render
from cache.errors import CorruptBlob
from cache.oci import Descriptor, Index
from cache.oci_layout import INDEX_FILE, LAYOUT_CONTENT, LAYOUT_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cache.digest import OciDigest


class TarBlob(NamedTuple):
    """A blob for write_layout_tar; `open_chunks` is called once."""

    digest: OciDigest
    size: int
    open_chunks: Callable[[], Iterable[bytes]]


class DockerImage(NamedTuple):
    """One image of the `manifest.json` that docker load reads; tags are whole names (`nginx:1.25`)."""

    config: OciDigest
    layers: tuple[OciDigest, ...]
    tags: tuple[str, ...]


def write_layout_tar(
    write: Callable[[bytes], object],
    blobs: Iterable[TarBlob],
    descriptors: Sequence[Descriptor],
    docker: Sequence[DockerImage] = (),
) -> None:
    """Write a layout as one tar stream: the same input gives the same bytes, whatever the order of the blobs.

    docker: makes the archive loadable by `docker load` too. `podman load` reads the layout first and takes the name
    from REF_NAME, so that should be the whole name (`docker.io/library/app:v1`), not the tag.
    CorruptBlob for a blob whose chunks are not what its digest and size say; the stream is then worth nothing.
    """
    for directory in ("blobs/", "blobs/sha256/"):
        write(_tar_header(directory, 0))
    unique = {blob.digest: blob for blob in blobs}
    for digest in sorted(unique):
        blob = unique[digest]
        write(_tar_header(f"blobs/sha256/{digest.hex}", blob.size))
        hasher = hashlib.sha256()
        count = 0
        for chunk in blob.open_chunks():
            hasher.update(chunk)
            count += len(chunk)
            write(chunk)
        if count != blob.size or hasher.hexdigest() != digest.hex:
            raise CorruptBlob(f"the bytes for blob {digest} are not its own")
        write(bytes(-count % 512))
    files = {INDEX_FILE: Index(tuple(descriptors)).to_json(), LAYOUT_FILE: LAYOUT_CONTENT}
    if docker:
        files["manifest.json"] = render(
            [
                {
                    "Config": f"blobs/sha256/{image.config.hex}",
                    "RepoTags": list(image.tags),
                    "Layers": [f"blobs/sha256/{layer.hex}" for layer in image.layers],
                }
                for image in docker
            ]
        )
    for name in sorted(files):
        write(_tar_header(name, len(files[name])))
        write(files[name] + bytes(-len(files[name]) % 512))
    write(bytes(1024))


def _tar_header(name: str, size: int) -> bytes:
    import tarfile  # only for exports

    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if name.endswith("/") else 0o644
    info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
    return info.tobuf(tarfile.PAX_FORMAT)  # PAX, because a layer may have more than the 8 GiB of plain ustar
