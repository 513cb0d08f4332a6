"""ContextTree: the files of a local directory that survive its ignore rules, hashed once and remembered."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from cache import encoding
from cache.entry import DIRECTORY, Entry
from cache.errors import DefinitionError, EnvironmentProblem
from worker.below import Below
from worker.context_digest import directory_digest, entry_digest
from worker.context_directory import ContextDirectory, text
from worker.pretended import Pretended
from worker.tree import Data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache.rootfs import Resolution
    from cache.store import Store

RACY_NANOSECONDS = 2_000_000_000
"""A file touched this shortly before the scan may change again without its times changing: some filesystems keep times
to two seconds (git has the same rule). Such a directory is hashed again next time."""


_KINDS = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO})
"""Sockets and devices are never part of a context."""
_CHUNK = 1 << 20
"""Bytes of a large file that are hashed at once."""


class Rules(Protocol):
    """Which paths of a context do not belong to it."""

    def ignored(self, path: str) -> bool: ...

    def may_contain_exceptions(self, directory: str) -> bool: ...

    def digest_input(self) -> str: ...


class ContextTree:
    """A `Tree` over a directory. Only what is asked for is read; an unchanged directory costs one stat a name.

    Owners are left out (every file belongs to root in the image), so are extended attributes, and modes are freed of
    the umask. Files must not change while the tree is in use; where that is noticed it is an error.
    """

    def __init__(self, directory: str, rules: Rules, store: Store, changed: Iterable[str] = ()) -> None:
        """directory: an existing directory. changed: paths below it that are taken for changed, though they are not
        touched: files with content that nothing had before, directories with all in them. Raises EnvironmentProblem.
        """
        self.directory = os.path.realpath(directory)
        self._rules = rules
        self._ruled = bool(rules.digest_input())
        self._store = store
        self._started = time.time_ns()
        self._pretended = Pretended(directory, changed)
        identity = [self.directory, rules.digest_input()]
        self._prefix = encoding.key("context", identity)[:32]
        self._known: dict[str, bytes] | None = None
        self._directories: dict[str, ContextDirectory] = {}
        self._digests: dict[str, str] = {}
        try:
            self._below = Below(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise EnvironmentProblem(f"cannot read the context {directory}: {error.strerror}") from None

    # Tree

    def resolve(self, path: str) -> Resolution:
        from cache.rootfs import resolve

        return resolve(self.lookup, path)

    def lookup(self, path: str) -> tuple[Entry, int] | None:
        if not path:
            return Entry("", DIRECTORY, 0o755), 0
        above = ""
        names = path.split("/")
        for name in names[:-1]:
            entry = self._read(above).entry(name)
            if entry is None or entry.kind != DIRECTORY:
                return None
            above = entry.path
        entry = self._read(above).entry(names[-1])
        return None if entry is None else (entry, 0)

    def listdir(self, path: str) -> list[str]:
        return self._read(path).names

    def walk(self, path: str) -> Iterator[tuple[Entry, int]]:
        entries = []
        top = self.lookup(path)
        if top is None:
            return
        pending = [top[0]]
        while pending:
            entry = pending.pop()
            entries.append(entry)
            if entry.kind == DIRECTORY:
                pending += self._read(entry.path).all_entries()
        for entry in sorted(entries):
            yield entry, 0

    def digest(self, path: str) -> str:
        """A Merkle digest: of a directory over the digests of what is in it."""
        known = self._digests.get(path)
        if known is None:
            found = self.lookup(path)
            if found is None:
                raise DefinitionError(f"{path!r} is not in the context")
            known = self._directory_digest(path) if found[0].kind == DIRECTORY else entry_digest(found[0])
            self._digests[path] = known
        return known

    @contextlib.contextmanager
    def data(self, entry: Entry, number: int) -> Iterator[Data]:
        fd = self._open_file(entry.path)
        try:
            yield Data(fd, 0)
        finally:
            os.close(fd)

    # reading

    def _directory_digest(self, path: str) -> str:
        # Children first and without recursion, since contexts may be deep.
        order = []
        pending = [path]
        while pending:
            directory = pending.pop()
            order.append(directory)
            prefix = f"{directory}/" if directory else ""
            pending += [prefix + name for name, _ in self._read(directory).subdirectories]
        for directory in reversed(order):
            listing = self._read(directory)
            prefix = f"{directory}/" if directory else ""
            below = [(name, mode, self._digests[prefix + name]) for name, mode in listing.subdirectories]
            self._digests[directory] = directory_digest(listing.files_digest(), below)
        return self._digests[path]

    def _read(self, path: str) -> ContextDirectory:
        known = self._directories.get(path)
        if known is not None:
            return known
        # An ignored directory belongs if something below it does, so those come first; without recursion, as above.
        pending = [(path, self._list(path))]
        while pending:
            directory, statuses = pending[-1]
            prefix = f"{directory}/" if directory else ""
            decided = {name: self._belongs(prefix + name, status) for name, status in statuses.items()}
            open_ = [prefix + name for name, belongs in decided.items() if belongs is None]
            unread = [below for below in open_ if below not in self._directories]
            if unread:
                pending += [(below, self._list(below)) for below in unread]
                continue
            pending.pop()
            names = [
                name
                for name in sorted(statuses)
                if decided[name] or (decided[name] is None and self._directories[prefix + name].names)
            ]
            made = ContextDirectory(directory, statuses, names, self._remembered(directory), self)
            self._directories[directory] = made
        return self._directories[path]

    def records(self) -> list[tuple[str, bytes]]:
        """What this scan found, for the store's `stats` table, so that the next one need not hash it again."""
        if self._pretended:
            return []
        made = ((self._key(path), listing.record()) for path, listing in self._directories.items())
        return [(key, value) for key, value in made if value is not None]

    def _list(self, path: str) -> dict[str, os.stat_result]:
        if self._pretended.is_new_directory(path):
            return self._pretended.add({}, path)
        fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as listing:
                found = {text(item.name): item.stat(follow_symlinks=False) for item in listing}
            return self._pretended.add(found, path)
        except OSError as error:
            raise EnvironmentProblem(f"cannot read {path or '.'} in the context: {error.strerror}") from None
        finally:
            os.close(fd)

    def _belongs(self, path: str, status: os.stat_result) -> bool | None:
        """Whether a path is part of the context; None for an ignored directory that is if something below it is."""
        if stat.S_IFMT(status[0]) not in _KINDS:
            return False
        if not self._ruled or not self._rules.ignored(path):
            return True
        return None if stat.S_ISDIR(status[0]) and self._rules.may_contain_exceptions(path) else False

    def _open(self, path: str, flags: int) -> int:
        try:
            return self._below.open(path, flags)
        except OSError as error:
            raise EnvironmentProblem(f"cannot read {path or '.'} in the context: {error.strerror}") from None

    def _open_file(self, path: str) -> int:
        fd = self._open(path, os.O_RDONLY)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise EnvironmentProblem(f"{path} in the context was replaced while the build read it")
        return fd

    def leaves_out(self, path: str) -> bool:
        """Whether the ignore rules are why a path is not in the context."""
        return bool(path) and self._rules.ignored(path) and os.path.lexists(os.path.join(self.directory, path))

    def pretended(self, path: str) -> str:
        """What a file that is taken for changed has as its digest, "" for any other."""
        return self._pretended.digest(path)

    def hash_file(self, path: str, size: int) -> str:
        """BLAKE3 hex of a file's bytes."""
        fd = self._open_file(path)
        try:
            # Not by a memory map, since a file that shrinks meanwhile would kill the process; and not on all cores,
            # since a process with threads can enter no user namespace, which comes after this.
            hasher, chunk = blake3(), min(size + 1, _CHUNK)
            while data := os.read(fd, chunk):
                hasher.update(data)
            return hasher.hexdigest()
        except OSError as error:
            raise EnvironmentProblem(f"cannot read {path} in the context: {error.strerror}") from None
        finally:
            os.close(fd)

    def read_link(self, path: str) -> str:
        """Where a symlink points."""
        try:
            return text(self._below.read_link(path))
        except OSError as error:
            raise EnvironmentProblem(f"cannot read {path} in the context: {error.strerror}") from None

    # what earlier scans found

    def racy(self, status: os.stat_result) -> bool:
        """Whether a file could change once more without its times telling."""
        return self._started - max(status.st_mtime_ns, status.st_ctime_ns) <= RACY_NANOSECONDS

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    def _remembered(self, path: str) -> bytes | None:
        if self._pretended.touches(path):
            return None
        if self._known is None:
            self._known = dict(self._store.scan("stats", self._prefix))
        return self._known.get(self._key(path))
