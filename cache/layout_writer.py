"""LayoutWriter: puts images into a directory of the OCI layout form."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from cache.errors import CorruptBlob, EnvironmentProblem
from cache.oci import REF_NAME, Descriptor, Index
from cache.oci_layout import INDEX_FILE, LAYOUT_CONTENT, LAYOUT_FILE, LayoutProblem, OciLayout
from cache.temporary import locked_file, sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache.digest import OciDigest


class LayoutWriter:
    """Writes an OCI layout, into a new directory or beside the images of one that is there.

    Blobs may be added by many threads. index.json names them only after `finish`, so a writer that dies leaves what
    was there before, and perhaps blobs that nobody names; half ones go with the next writer. Nothing is synced to the
    disk: an output can be made again.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._blobs = os.path.join(directory, "blobs", "sha256")
        with _writing(directory):
            os.makedirs(directory, exist_ok=True)
            for path in (os.path.dirname(self._blobs), self._blobs):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path)
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise LayoutProblem(f"{path} is not a directory")
        sweep(directory)

    def has_blob(self, digest: OciDigest, size: int) -> bool:
        """Whether a file of the blob's name and size is there."""
        try:
            found = os.lstat(os.path.join(self._blobs, digest.hex))
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == size

    def add_blob(self, digest: OciDigest, size: int, chunks: Iterable[bytes]) -> None:
        """Write a blob; CorruptBlob, and nothing written, if the chunks are not what digest and size say."""
        hasher = hashlib.sha256()
        count = 0

        def checked() -> Iterator[bytes]:
            nonlocal count
            for chunk in chunks:
                hasher.update(chunk)
                count += len(chunk)
                if count > size:
                    break
                yield chunk
            if count != size or hasher.hexdigest() != digest.hex:
                raise CorruptBlob(f"the bytes for blob {digest} in {self._directory} are not its own")

        self._replace(os.path.join(self._blobs, digest.hex), checked())

    def finish(self, descriptors: Sequence[Descriptor]) -> None:
        """Name the images. Those that were there stay, except the ones whose tag is given anew or that are the same."""
        names = {entry.annotation(REF_NAME) for entry in descriptors} - {""}
        same = {entry.digest for entry in descriptors}
        kept = [
            entry
            for entry in self._former()
            if entry.annotation(REF_NAME) not in names and (entry.annotation(REF_NAME) or entry.digest not in same)
        ]
        self._replace(os.path.join(self._directory, LAYOUT_FILE), [LAYOUT_CONTENT])
        self._replace(os.path.join(self._directory, INDEX_FILE), [Index((*kept, *descriptors)).to_json()])

    def _former(self) -> tuple[Descriptor, ...]:
        if not os.path.lexists(os.path.join(self._directory, INDEX_FILE)):
            return ()
        return OciLayout.open(self._directory).images.manifests

    def _replace(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file whole or not at all; a symlink in its place is replaced, not followed."""
        # At the top, where a leftover of a killed process is no blob with a wrong name.
        with _writing(self._directory), locked_file(self._directory) as (temporary, fd):
            with open(fd, "wb", closefd=False) as file:
                for chunk in chunks:
                    file.write(chunk)
            os.rename(temporary, path)


@contextlib.contextmanager
def _writing(directory: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to {directory}: {error.strerror}") from error
