"""Contexts that are no directory: a git repository, an archive or a Dockerfile on the web, an archive on stdin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.digest import Digest
from cache.entry import FILE
from cache.errors import StoreProblem, UsageError
from cache.store import Batch, NewFile
from compiler.fetched_layers import find_fetched, keep_fetched
from compiler.git_words import is_git
from compiler.secret_values import shown_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.result import Layer
    from cache.store import Store
    from compiler.git_source import GitRepositories
    from compiler.http_files import HttpFiles
    from worker.library import LayerLibrary

MAX_DOCKERFILE = 16 << 20
_CHUNK = 1 << 20


class RemoteContexts:
    """Brings such contexts into the store, each as one layer."""

    def __init__(self, store: Store, library: LayerLibrary, http: HttpFiles) -> None:
        self._store = store
        self._library = library
        self._http = http
        self._git: GitRepositories | None = None

    @property
    def git(self) -> GitRepositories:
        """Made when the first repository comes: a build without one need not load what it takes."""
        if self._git is None:
            from compiler.git_source import GitRepositories

            self._git = GitRepositories(self._store, self._library)
        return self._git

    def layer(self, where: str, *, keep_git: bool = False) -> Layer | None:
        """where: a git or http(s) URL, or a local file with an archive. None if it is a file that is no archive.

        keep_git: leave `.git` in a repository.

        Raises RemoteError, CorruptLayer, UsageError.
        """
        if is_git(where):
            from compiler.git_source import parse_git_url

            url = parse_git_url(where)
            return self.git.layer(url._replace(keep=url.keep or keep_git))[0]
        digest = self._http.get(where, "").digest if "://" in where else self._import(where)
        return self._archive(digest)

    def time(self, where: str) -> int:
        """When a commit was made, or a server says that a file was modified; 0 if it does not say."""
        if is_git(where):
            from compiler.git_source import parse_git_url

            return self.git.time(parse_git_url(where))
        return self._http.get(where, "").modified

    def text(self, where: str) -> bytes:
        """The bytes of a URL that is a Dockerfile itself."""
        digest = self._http.get(where, "").digest
        if digest.size > MAX_DOCKERFILE:
            raise UsageError(f"{shown_url(where)} is larger than {MAX_DOCKERFILE >> 20} MiB, and no archive")
        return self._store.read_blob(digest)

    def file(self, layer: Layer, path: str) -> bytes | None:
        """A file of such a context, None if it is not there; symlinks stay inside."""
        tree = self._library.tree((layer,))
        found = tree.resolve(path)
        if found.entry is None or found.entry.kind != FILE:
            return None
        if found.entry.size > MAX_DOCKERFILE:
            raise UsageError(f"{path} is larger than {MAX_DOCKERFILE >> 20} MiB")
        with tree.data(found.entry, found.layer) as data:
            return os.pread(data.fd, found.entry.size, data.offset)

    def _import(self, path: str) -> Digest:
        from blake3 import blake3

        hasher, size = blake3(), 0
        kept = self._store.scratch("context")
        try:
            with open(path, "rb") as file, open(kept, "xb") as copy:
                while chunk := file.read(_CHUNK):
                    hasher.update(chunk)
                    size += len(chunk)
                    copy.write(chunk)
        except OSError as error:
            raise StoreProblem(f"cannot keep the context: {error.strerror}") from None
        digest = Digest(hasher.hexdigest(), size)
        self._store.submit(Batch(files=(NewFile(digest, kept),)))
        return digest

    def _archive(self, digest: Digest) -> Layer | None:
        from cache.layer_reader import decompress, import_layer
        from worker.archive import is_tar

        key = f"archive:{digest}"
        known = find_fetched(self._store, key)
        if known is not None:
            return known
        path = self._store.blob_path(digest)
        if not is_tar(_chunks(path)):
            return None
        layer, batch = self._library.write_layer(lambda fd: import_layer(decompress(_chunks(path)), fd))
        keep_fetched(self._store, key, layer, batch)
        return layer


def _chunks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
