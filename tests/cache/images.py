"""A small real image for the tests of layouts and registries."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from typing import NamedTuple

from cache import oci
from cache.digest import OciDigest
from cache.image_config import History, ImageConfig
from cache.oci import Descriptor, Manifest
from cache.platform import Platform


class Image(NamedTuple):
    manifest: bytes
    digest: OciDigest
    blobs: dict[OciDigest, bytes]
    """Config and layers."""
    config: OciDigest
    layers: tuple[OciDigest, ...]

    def descriptor(self, tag: str = "", kind: str = oci.OCI_MANIFEST) -> Descriptor:
        annotations = ((oci.REF_NAME, tag),) if tag else ()
        return Descriptor(kind, self.digest, len(self.manifest), Platform("linux", "amd64"), annotations)


def sha256(data: bytes) -> OciDigest:
    return OciDigest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def pieces(*chunks: bytes) -> Callable[[], list[bytes]]:
    """A blob as uploads and archives want it: a function that opens it anew."""
    return lambda: list(chunks)


def make_image(text: str = "hello") -> Image:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    layer = gzip.compress(tar.getvalue(), mtime=0)
    config = ImageConfig.empty(Platform("linux", "amd64"))._replace(
        diff_ids=(sha256(tar.getvalue()),),
        history=(History("2024-01-01T00:00:00Z", "COPY file /"),),
        created="2024-01-01T00:00:00Z",
        labels=(("text", text),),
    )
    blobs = {sha256(data): data for data in (config.to_json(), layer)}
    manifest = Manifest(
        Descriptor(oci.OCI_CONFIG, sha256(config.to_json()), len(config.to_json())),
        (Descriptor(oci.OCI_LAYER_GZIP, sha256(layer), len(layer)),),
    ).to_json()
    return Image(manifest, sha256(manifest), blobs, sha256(config.to_json()), (sha256(layer),))
