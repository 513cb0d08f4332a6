"""BlobFiles: the large blobs of a store, a file each, named by their hash."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cache.digest import Digest

DIRECTORY = "blobs"
INLINE_LIMIT = 32 << 10
"""Blobs up to this many bytes live in LMDB: one commit instead of a file, its fsync and its directory's."""
_FAN = r"[0-9a-f]{2}"
_REST = r"[0-9a-f]{62}"


class BlobFiles:
    """`STORE/blobs/HA/SH…`. Whoever removes one does so as `cache.condemned` says."""

    def __init__(self, store: str) -> None:
        """Raises OSError."""
        self.directory = os.path.join(store, DIRECTORY)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)

    def path(self, digest: Digest) -> str:
        return self.path_of(digest.hash)

    def path_of(self, hash_: str) -> str:
        return os.path.join(self.directory, hash_[:2], hash_[2:])

    def has(self, digest: Digest) -> bool:
        return os.path.exists(self.path(digest))

    def read(self, digest: Digest) -> bytes | None:
        """Its bytes; None if it is not there, or cannot be read."""
        try:
            with open(self.path(digest), "rb") as file:
                return file.read()
        except OSError:
            return None

    def place(self, files: Mapping[Digest, str]) -> set[Digest]:
        """Make finished files durable under their blobs' names; those that were not there yet. Raises OSError."""
        directories = {digest: self._place(digest, path) for digest, path in files.items()}
        for directory in sorted(set(directories.values()) - {""}):
            sync(directory)
        return {digest for digest, directory in directories.items() if directory}

    def _place(self, digest: Digest, path: str) -> str:
        """The directory that must be synced, "" if the file is there."""
        final = self.path(digest)
        if os.path.exists(final):
            return ""
        sync(path)
        directory = os.path.dirname(final)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        # A link, not a rename: whoever still reads the scratch file keeps a valid name.
        try:
            os.link(path, final)
        except FileExistsError:
            return ""
        os.chmod(final, 0o400)
        return directory

    def remove(self, hash_: str) -> int:
        """Unlink one; the bytes that it had on disk, 0 if it was gone. Raises OSError."""
        path = self.path_of(hash_)
        try:
            size = os.lstat(path).st_blocks * 512
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def scan(self) -> Iterator[tuple[str, bool]]:
        """(name below the directory, whether it is the name of a blob) of everything that is there."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as fans:
            for fan in fans:
                if not (re.fullmatch(_FAN, fan.name) and fan.is_dir(follow_symlinks=False)):
                    yield fan.name, False
                    continue
                with os.scandir(fan.path) as files:
                    for file in files:
                        regular = bool(re.fullmatch(_REST, file.name)) and file.is_file(follow_symlinks=False)
                        yield f"{fan.name}/{file.name}", regular


def sync(path: str) -> None:
    """fsync of a file or directory. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
