"""Tree: the files that a COPY or a bind mount takes from: a context, a root filesystem, an archive, one file."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache import encoding
from cache.entry import DIRECTORY, FILE, Entry
from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.rootfs import Resolution, Rootfs


class Data(NamedTuple):
    """Where a file's bytes are. The descriptor is the reader's only until the `with` block ends."""

    fd: int
    offset: int


class Tree(Protocol):
    """Paths are relative to the root, `""` is the root. Nothing here leads out of the tree, whatever links say."""

    def resolve(self, path: str) -> Resolution:
        """Follow symlinks, the last one too, never above the root."""
        ...

    def lookup(self, path: str) -> tuple[Entry, int] | None:
        """The entry at exactly this path, following no symlink; None if nothing is there."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def walk(self, path: str) -> Iterator[tuple[Entry, int]]:
        """The entry at this real path and all below it, in order of their paths; with a number for `data`."""
        ...

    def digest(self, path: str) -> str:
        """BLAKE3 hex of all that `walk` gives, times left out and paths relative to this one."""
        ...

    def data(self, entry: Entry, number: int) -> contextlib.AbstractContextManager[Data]:
        """Open a FILE's bytes. Raises EnvironmentProblem."""
        ...


def kept(tree: Tree, path: str, keep: Callable[[str], bool]) -> Iterator[tuple[str, Entry, int]]:
    """What `keep` takes below the directory `path`, and the directories that lead there, which `keep` may leave out.

    Gives the relative path, which is what `keep` is asked about, and what `Tree.walk` gives; directories come before
    what is in them.
    """
    start = len(path) + 1 if path else 0
    left_out: dict[str, tuple[Entry, int]] = {}
    for entry, number in tree.walk(path):
        relative = entry.path[start:]
        if not relative:
            continue
        if not keep(relative):
            if entry.kind == DIRECTORY:
                left_out[relative] = entry, number
            continue
        leading = []
        above = relative.rpartition("/")[0]
        while above and left_out:
            if above in left_out:
                leading.append((above, *left_out.pop(above)))
            above = above.rpartition("/")[0]
        yield from reversed(leading)
        yield relative, entry, number


def walk_digest(tree: Tree, path: str, keep: Callable[[str], bool] | None = None) -> str:
    """`Tree.digest` by walking; `keep` says which paths, relative to `path`, count: see `kept`."""
    rows = []
    first_names: dict[tuple[int, int], str] = {}
    start = len(path) + 1 if path else 0
    everything = ((entry.path[start:], entry, number) for entry, number in tree.walk(path))
    top = itertools.islice(everything, 1)
    for relative, entry, number in itertools.chain(top, everything if keep is None else kept(tree, path, keep)):
        # Two names of one file (their data lies at one place) are another tree than two equal files.
        place = (number, entry.offset)
        same = first_names.setdefault(place, relative) if entry.kind == FILE and entry.offset else relative
        rows.append(
            [
                relative, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.digest, entry.link,
                entry.major, entry.minor, [[name, value.hex()] for name, value in entry.xattrs],
                "" if same == relative else same,
            ]
        )  # fmt: skip
    return encoding.key("tree", rows)


class RootfsTree:
    """The merged layers of an image or stage. open_tar: layer number → descriptor of its tar, which stays open."""

    def __init__(self, rootfs: Rootfs, open_tar: Callable[[int], int]) -> None:
        self._rootfs = rootfs
        self._open_tar = open_tar

    def resolve(self, path: str) -> Resolution:
        return self._rootfs.resolve(path)

    def lookup(self, path: str) -> tuple[Entry, int] | None:
        return self._rootfs.lookup(path)

    def listdir(self, path: str) -> list[str]:
        return self._rootfs.listdir(path)

    def walk(self, path: str) -> Iterator[tuple[Entry, int]]:
        return self._rootfs.walk(path)

    def digest(self, path: str) -> str:
        return walk_digest(self, path)

    @contextlib.contextmanager
    def data(self, entry: Entry, number: int) -> Iterator[Data]:
        yield Data(self._open_tar(number), entry.offset)


class FileTree(RootfsTree):
    """One file under one name: a downloaded blob or a heredoc."""

    def __init__(self, entry: Entry, open_file: Callable[[], int]) -> None:
        """entry: a FILE with size and digest. open_file: a new descriptor of exactly these bytes."""
        from cache.index import Index
        from cache.rootfs import Rootfs

        super().__init__(Rootfs([Index([entry])]), lambda _: -1)
        self._open_file = open_file

    @contextlib.contextmanager
    def data(self, entry: Entry, number: int) -> Iterator[Data]:
        try:
            fd = self._open_file()
        except OSError as error:
            raise EnvironmentProblem(f"cannot read {entry.path}: {error.strerror}") from None
        try:
            yield Data(fd, 0)
        finally:
            os.close(fd)

