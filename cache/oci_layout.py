"""OciLayout: a directory of images in the OCI layout form, for reading."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cache.digest import OciDigest
from cache.document import Document
from cache.errors import CorruptBlob, EnvironmentProblem, UsageError
from cache.oci import MOST_LISTED, MOST_MANIFEST, REF_NAME, Descriptor, Index, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
CHUNK = 256 << 10
"""Bytes a read."""
_CONTAINERD_NAME = "io.containerd.image.name"
"""The annotation that docker and BuildKit add with the whole name; REF_NAME then holds the tag alone."""
_FORMER_TYPES = ("", "application/json")


LAYOUT_HINT = "such a directory is written by: buildgraph build … -o type=oci,tar=false,dest=DIR"


class LayoutProblem(UsageError):
    """A directory is no OCI layout, or it does not hold the image that was asked for."""


class OciLayout(NamedTuple):
    """An OCI layout that is there. Nothing of it is trusted; no symlink in it is followed. Safe for many threads."""

    directory: str
    images: Index

    @classmethod
    def open(cls, directory: str) -> OciLayout:
        """Read `oci-layout` and `index.json`; LayoutProblem when the directory is no layout."""
        what = f"{directory}/{LAYOUT_FILE}"
        version = Document.parse(_read_small(directory, LAYOUT_FILE), what, MOST_MANIFEST).text("imageLayoutVersion")
        if not version.startswith("1."):
            raise LayoutProblem(f"{directory} is an OCI layout of version {version[:20]!r}; only 1.x can be read")
        index = parse_manifest(_read_small(directory, INDEX_FILE), "", f"{directory}/{INDEX_FILE}")
        if not isinstance(index, Index):
            raise CorruptBlob(f"{directory}/{INDEX_FILE} is an image, not an index")
        return cls(directory, index)

    def get_manifest(self, reference: str = "") -> tuple[bytes, str, OciDigest]:
        """The bytes of a manifest or index, its media type and digest.

        reference: a tag, a whole name, a `sha256:…` digest, or `""` for the only image or the one tagged latest.
        """
        if reference.startswith("sha256:"):
            digest = OciDigest(reference)
            known = next((entry for entry in self.images.manifests if entry.digest == digest), None)
            size = known.size if known else None
            media_type = known.media_type if known else ""
        else:
            found = self.select(reference)
            digest, size, media_type = found.digest, found.size, found.media_type
        data = _read_small(self.directory, f"blobs/sha256/{digest.hex}")
        if (size is not None and len(data) != size) or hashlib.sha256(data).hexdigest() != digest.hex:
            raise CorruptBlob(f"{self.directory}: the manifest {digest} is damaged")
        if media_type in _FORMER_TYPES:
            media_type = parse_manifest(data, "", f"the manifest {digest}").media_type
        return data, media_type, digest

    def select(self, reference: str = "") -> Descriptor:
        """The entry of index.json that a tag or name means; LayoutProblem lists what is there."""
        entries = self.images.manifests
        if reference:
            found = [entry for entry in entries if reference in _names(entry)]
        else:
            found = list(entries) if len(entries) == 1 else [entry for entry in entries if "latest" in _names(entry)]
        if len({entry.digest for entry in found}) == 1:
            return found[0]
        names = sorted({entry.annotation(REF_NAME) or entry.digest for entry in entries})
        listed = ", ".join(names[:MOST_LISTED]) + (", …" if len(names) > MOST_LISTED else "")
        problem = "has more than one image" if found or not reference else "has no image"
        called = f" called {reference!r}" if reference else ""
        raise LayoutProblem(f"{self.directory} {problem}{called}; there is: {listed or 'nothing'}")

    def open_blob(self, digest: OciDigest, size: int) -> Iterator[bytes]:
        """The bytes of a blob in pieces; verified at the end, until then none may be trusted."""
        hasher = hashlib.sha256()
        descriptor = _open(self.directory, f"blobs/sha256/{digest.hex}")
        try:
            found = os.fstat(descriptor).st_size
            if found != size:
                raise CorruptBlob(f"{self.directory}: the blob {digest} has {found} bytes, not {size}")
            # One piece more than there should be: a file that grows meanwhile is found out by its digest.
            while chunk := os.read(descriptor, CHUNK):
                hasher.update(chunk)
                yield chunk
        finally:
            os.close(descriptor)
        if hasher.hexdigest() != digest.hex:
            raise CorruptBlob(f"{self.directory}: the blob {digest} is damaged")


def _names(entry: Descriptor) -> set[str]:
    """All that people call an entry: its annotations, and the tags in them."""
    names = {entry.annotation(REF_NAME), entry.annotation(_CONTAINERD_NAME)} - {""}
    return names | {name.rpartition(":")[2] for name in names if "@" not in name and "/" not in name.rpartition(":")[2]}


def _read_small(directory: str, path: str) -> bytes:
    """A file of at most MOST_MANIFEST bytes."""
    with open(_open(directory, path), "rb") as file:
        data = file.read(MOST_MANIFEST + 1)
    if len(data) > MOST_MANIFEST:
        raise CorruptBlob(f"{directory}/{path} has more than {MOST_MANIFEST} bytes")
    return data


def _open(directory: str, path: str) -> int:
    """A descriptor of a regular file; every component below the directory is opened without following symlinks."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        here = os.open(directory, flags | os.O_DIRECTORY)
        *parents, name = path.split("/")
        try:
            for parent in parents:
                above, here = here, os.open(parent, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                os.close(above)
            # O_NONBLOCK: opening a FIFO would wait for a writer for ever.
            found = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
        finally:
            os.close(here)
    except (FileNotFoundError, NotADirectoryError):
        if path.startswith("blobs/"):
            raise LayoutProblem(f"{directory} does not hold the blob sha256:{path[-64:]}") from None
        missing = f"there is no {path} in it" if os.path.isdir(directory) else "there is no such directory"
        raise LayoutProblem(f"{directory} is not an OCI layout: {missing}", hint=LAYOUT_HINT) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LayoutProblem(f"{directory}/{path} is a symlink, which is not followed") from None
        raise EnvironmentProblem(f"cannot read {directory}/{path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise LayoutProblem(f"{directory}/{path} is not a regular file")
    return found
