"""ContextDirectory: one directory of a context, what stat says of it, and the digests that are known already."""

from __future__ import annotations

import contextlib
import marshal
import os
import stat
from typing import TYPE_CHECKING

from blake3 import blake3

from cache import encoding
from cache.entry import DIRECTORY, FIFO, FILE, SYMLINK, Entry
from worker.context_digest import files_digest

if TYPE_CHECKING:
    from worker.context import ContextTree

_UMASKED = {
    **dict.fromkeys((0o664, 0o660, 0o644, 0o640, 0o600), 0o644),
    **dict.fromkeys((0o775, 0o770, 0o755, 0o750, 0o700), 0o755),
}
"""Modes that differ only by the umask of whoever wrote the file count, and are copied, as with umask 022 (I1)."""

UNKNOWN_SIZE = -1
"""Bytes of a file that is only taken for changed: what they would be nobody knows."""
_UNKNOWN = "-" * 64
_HASH = 64


class ContextDirectory:
    """Files are hashed when they are asked for; the whole directory's digest comes from memory if nothing moved.

    names: those that belong to the context, sorted. subdirectories: (name, mode) of the directories among them.
    """

    def __init__(
        self,
        path: str,
        statuses: dict[str, os.stat_result],
        names: list[str],
        remembered: bytes | None,
        tree: ContextTree,
    ) -> None:
        """remembered: what `record` gave in an earlier scan."""
        self.path = path
        self.names = names
        is_directory = stat.S_ISDIR
        self._subdirectory_names = {name for name, status in statuses.items() if is_directory(status[0])}
        self.subdirectories = [(name, _mode(statuses[name])) for name in names if name in self._subdirectory_names]
        self._statuses = statuses
        self._belonging = frozenset(names)
        self._tree = tree
        self._entries: dict[str, Entry] = {}
        self._signature = self._sign()
        self._remembered = remembered
        self._unchanged = remembered is not None and remembered[:_HASH] == self._signature.encode()
        self._known: dict[str, list[str]] | None = None
        self._digest = ""
        if self._unchanged and remembered is not None:
            digest = remembered[_HASH : 2 * _HASH].decode()
            self._digest = "" if digest == _UNKNOWN else digest

    def entry(self, name: str) -> Entry | None:
        """The name as it will stand in the image, or None if it does not belong to the context."""
        known = self._entries.get(name)
        if known is None and name in self._belonging:
            known = self._entries[name] = self._make(name)
        return known

    def all_entries(self) -> list[Entry]:
        return [entry for name in self.names if (entry := self.entry(name)) is not None]

    def files_digest(self) -> str:
        """BLAKE3 hex over everything in here but directories."""
        if not self._digest:
            self._digest = files_digest(self.all_entries())
        return self._digest

    def record(self) -> bytes | None:
        """What to remember of this scan; None if that is known already or may be wrong soon."""
        files = {
            name: [entry.digest, _describe(self._statuses[name])]
            for name, entry in self._entries.items()
            if entry.kind == FILE and not self._tree.racy(self._statuses[name])
        }
        if not files or (self._unchanged and self._known is None):
            return None
        directories = self._subdirectory_names
        racy = any(self._tree.racy(self._statuses[name]) for name in self.names if name not in directories)
        digest = _UNKNOWN if racy or not self._digest else self._digest
        value = self._signature.encode() + digest.encode() + encoding.canonical({**self._still_known(), **files})
        return None if value == self._remembered else value

    def _still_known(self) -> dict[str, list[str]]:
        known = self._memory()
        return {
            name: known[name]
            for name in self.names
            if name in known and known[name][1] == _describe(self._statuses[name])
        }

    def _memory(self) -> dict[str, list[str]]:
        if self._known is None:
            self._known = {}
            # A damaged record is as good as none: the files are hashed again.
            with contextlib.suppress(*encoding.UNREADABLE):
                value = encoding.parse(self._remembered[2 * _HASH :]) if self._remembered else {}
                self._known = {name: [str(digest), str(stamp)] for name, (digest, stamp) in value.items()}
        return self._known

    def _sign(self) -> str:
        """A digest of all that stat says of the names; of directories only their modes, as their times move with every
        file below."""
        directories = self._subdirectory_names
        # A stat_result starts with mode, inode and device; number 6 is the size. marshal is the fastest way to bytes,
        # and a record of another Python's only costs hashing once more.
        parts = [
            (name, status[0])
            if name in directories
            else (name, status[0], status[1], status[2], status[6], status.st_mtime_ns, status.st_ctime_ns)
            for name, status in sorted(self._statuses.items(), key=_first)
        ]
        return blake3(marshal.dumps(parts, 2)).hexdigest()

    def _make(self, name: str) -> Entry:
        status = self._statuses[name]
        path = f"{self.path}/{name}" if self.path else name
        modified = int(status.st_mtime)
        pretended = self._tree.pretended(path)
        if stat.S_ISREG(status.st_mode):
            if pretended:
                return Entry(path, FILE, _mode(status), mtime=modified, size=UNKNOWN_SIZE, digest=pretended)
            known = self._memory().get(name)
            usable = known is not None and known[1] == _describe(status) and not self._tree.racy(status)
            digest = known[0] if known is not None and usable else self._tree.hash_file(path, status.st_size)
            return Entry(path, FILE, _mode(status), mtime=modified, size=status.st_size, digest=digest)
        if stat.S_ISLNK(status.st_mode):
            link = self._tree.read_link(path)
            if pretended:
                # It still leads where it did, as what it will lead to nobody knows; no link has a digest.
                return Entry(path, SYMLINK, 0o777, mtime=modified, size=UNKNOWN_SIZE, digest=pretended, link=link)
            return Entry(path, SYMLINK, 0o777, mtime=modified, link=link)
        if stat.S_ISDIR(status.st_mode):
            return Entry(path, DIRECTORY, _mode(status), mtime=modified)
        return Entry(path, FIFO, _mode(status), mtime=modified)


def _first(pair: tuple[str, os.stat_result]) -> str:
    return pair[0]


def text(name: str) -> str:
    """A name from the operating system with the surrogate escapes of UTF-8, whatever the locale is."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "surrogateescape")


def _mode(status: os.stat_result) -> int:
    mode = stat.S_IMODE(status.st_mode)
    return mode & ~0o777 | _UMASKED.get(mode & 0o777, mode & 0o777)


def _describe(status: os.stat_result) -> str:
    return (
        f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {status.st_dev} {status.st_mode}"
    )
