"""Backup: a store copied as of one moment, also while others use it, into a directory or a tar; and back again.

A blob that the copied records name cannot go meanwhile: the exporting process is a reader since before (`condemned`).
Records come last, so what has none is an export that was cut short.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tarfile
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from blake3 import blake3

from cache.blob_files import DIRECTORY, INLINE_LIMIT, sync
from cache.digest import Digest
from cache.errors import EnvironmentProblem, StoreProblem
from cache.lmdb_store import LmdbStore
from cache.naming import NAMING, blobs_in
from cache.run_dir import remove_tree
from cache.store import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.store import Table

RECORDS = "data.mdb"
PIECE = 1 << 20
SOME = 20_000
"""Records in one transaction of the copy."""
LEFT_OUT: frozenset[Table] = frozenset(("condemned",))
"""What says something about the original alone."""
_BLOB = re.compile(rf"(?:\./)?{DIRECTORY}/([0-9a-f]{{2}})/([0-9a-f]{{62}})")
_RECORDS = re.compile(rf"(?:\./)?{re.escape(RECORDS)}")


class Copied(NamedTuple):
    """blobs: large ones, each a file. bytes: of these and the records. linked: of the blobs, those whose file is the
    original's own."""

    blobs: int
    bytes: int
    records: int
    linked: int = 0


class _Target(Protocol):
    def blob(self, digest: Digest, path: str) -> bool:
        """Whether it was linked. Raises OSError."""
        ...

    def records(self, path: str) -> None: ...


def export_directory(store: LmdbStore, directory: str, tell: Callable[[int, int], None]) -> Copied:
    """Into an empty or new directory, which is a store itself then. Files are linked where that can be done.

    tell: bytes so far, bytes in all. Raises EnvironmentProblem, StoreProblem.
    """
    require_empty(directory)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        return _export(store, _Directory(directory), tell)
    except OSError as error:
        raise _problem(directory, error) from None


def export_tar(store: LmdbStore, out: IO[bytes], tell: Callable[[int, int], None]) -> Copied:
    """As a plain tar of the same directory. Raises EnvironmentProblem, StoreProblem."""
    try:
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=PIECE) as tar:
            return _export(store, _Tar(tar), tell)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise _problem("the tar", error) from None


def _export(store: LmdbStore, target: _Target, tell: Callable[[int, int], None]) -> Copied:
    scratch = store.scratch("export")
    try:
        named, records = _copy_records(store, scratch)
        path = os.path.join(scratch, RECORDS)
        size = os.path.getsize(path)
        total = size + sum(digest.size for digest in named)
        done = linked = 0
        for digest in named:
            source = store.files.path(digest)
            try:
                linked += target.blob(digest, source)
            except FileNotFoundError:
                hint = "`buildgraph cache verify --repair` drops what needs it"
                raise StoreProblem(f"the store's blob {digest} is gone", hint=hint) from None
            done += digest.size
            tell(done, total)
        target.records(path)
        return Copied(len(named), total, records, linked)
    finally:
        remove_tree(scratch)


def _copy_records(store: LmdbStore, scratch: str) -> tuple[list[Digest], int]:
    """(large blobs that are named, how many records): all of one moment."""
    named: set[str] = set()
    count = 0
    copy = LmdbStore(scratch)
    try:
        with store.view() as view:
            for table in TABLES:
                if table in LEFT_OUT:
                    continue
                for some in _some(view.scan(table)):
                    with copy.transaction() as to:
                        for key, value in some:
                            to.put(table, key, value)
                            if table in NAMING:
                                named.update(blobs_in(table, value))
                    count += len(some)
            for blobs in _some(view.blobs()):
                with copy.transaction() as to:
                    for hash_, data in blobs:
                        to.put_blob(Digest(hash_, len(data)), data)
    finally:
        copy.close()
    digests = (Digest.parse(text) for text in sorted(named))
    return [digest for digest in digests if digest.size > INLINE_LIMIT], count


def _some(found: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    some: list[tuple[str, bytes]] = []
    for each in found:
        some.append(each)
        if len(some) == SOME:
            yield some
            some = []
    if some:
        yield some


class _Directory:
    def __init__(self, directory: str) -> None:
        self._top = directory
        self._links = True

    def blob(self, digest: Digest, path: str) -> bool:
        final = os.path.join(self._top, DIRECTORY, digest.hash[:2], digest.hash[2:])
        os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
        if self._links:
            try:
                os.link(path, final)
                return True
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                    raise
                self._links = error.errno == errno.EMLINK
        with open(path, "rb") as source:
            copy_blob(source, final, digest)
        return False

    def records(self, path: str) -> None:
        for top, _, _ in os.walk(os.path.join(self._top, DIRECTORY)):
            sync(top)
        final = os.path.join(self._top, RECORDS)
        with open(path, "rb") as source, open(f"{final}.new", "wb") as to:
            os.fchmod(to.fileno(), 0o600)
            while piece := source.read(PIECE):
                to.write(piece)
            to.flush()
            os.fsync(to.fileno())
        os.replace(f"{final}.new", final)
        sync(self._top)


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def blob(self, digest: Digest, path: str) -> bool:
        with open(path, "rb") as file:
            checked = _Checked(file, digest)
            self._add(f"{DIRECTORY}/{digest.hash[:2]}/{digest.hash[2:]}", digest.size, checked)
            checked.finish()
        return False

    def records(self, path: str) -> None:
        with open(path, "rb") as file:
            self._add(RECORDS, os.path.getsize(path), file)

    def _add(self, name: str, size: int, file: object) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o600
        self._tar.addfile(entry, file)  # type: ignore[arg-type]


class _Checked:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes], digest: Digest) -> None:
        self._file = file
        self._digest = digest
        self._hash = blake3()

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        return piece

    def finish(self) -> None:
        """Raises StoreProblem if it is not what its name says."""
        if self._hash.hexdigest() != self._digest.hash:
            hint = "`buildgraph cache verify --repair` drops it, and a build makes it anew"
            raise StoreProblem(f"the blob {self._digest} is damaged", hint=hint)


def copy_blob(source: IO[bytes], final: str, digest: Digest | None, hash_: str = "") -> int:
    """Copy a file while it is hashed; its size. digest or hash_: what it must be. Raises OSError, StoreProblem."""
    checked = _Checked(source, digest or Digest(hash_, 0))
    new = f"{final}.new"
    size = 0
    try:
        with open(new, "wb") as to:
            while piece := checked.read(PIECE):
                to.write(piece)
                size += len(piece)
            checked.finish()
            to.flush()
            os.fsync(to.fileno())
        os.chmod(new, 0o400)
        os.replace(new, final)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    return size


def import_directory(source: str, directory: str) -> Copied:
    """A new store out of an exported directory; every file is read and verified. Raises EnvironmentProblem."""
    if not os.path.isfile(os.path.join(source, RECORDS)):
        raise EnvironmentProblem(f"{source} is no export of a store, or one that was cut short: it has no {RECORDS}")
    importing = _Import(directory)
    try:
        for top, _, names in os.walk(os.path.join(source, DIRECTORY)):
            for name in sorted(names):
                path = os.path.join(top, name)
                with open(path, "rb") as file:
                    importing.add(os.path.relpath(path, source), file)
        with open(os.path.join(source, RECORDS), "rb") as file:
            importing.add(RECORDS, file)
        return importing.finish()
    except OSError as error:
        raise _problem(directory, error) from None


def import_tar(source: IO[bytes], directory: str) -> Copied:
    """The same out of a tar. Raises EnvironmentProblem."""
    importing = _Import(directory)
    try:
        with tarfile.open(fileobj=source, mode="r|*", bufsize=PIECE) as tar:
            for entry in tar:
                file = tar.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    importing.add(entry.name, file)
    except tarfile.TarError as error:
        raise EnvironmentProblem(f"this is no export of a store, or one that was cut short: {error}") from None
    except OSError as error:
        raise _problem(directory, error) from None
    return importing.finish()


class _Import:
    """Takes only what a store consists of, whatever else is there."""

    def __init__(self, directory: str) -> None:
        require_empty(directory)
        self._top = directory
        self._new = os.path.join(directory, f"{RECORDS}.new")
        self._blobs = self._bytes = 0

    def add(self, name: str, file: IO[bytes]) -> None:
        match = _BLOB.fullmatch(name)
        if match is not None:
            final = os.path.join(self._top, DIRECTORY, match[1], match[2])
            os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
            self._bytes += copy_blob(file, final, None, match[1] + match[2])
            self._blobs += 1
        elif _RECORDS.fullmatch(name):
            os.makedirs(self._top, mode=0o700, exist_ok=True)
            with open(self._new, "wb") as to:
                os.fchmod(to.fileno(), 0o600)
                while piece := file.read(PIECE):
                    to.write(piece)
                    self._bytes += len(piece)
                to.flush()
                os.fsync(to.fileno())

    def finish(self) -> Copied:
        if not os.path.exists(self._new):
            raise EnvironmentProblem(f"this is no export of a store, or one that was cut short: it has no {RECORDS}")
        for top, _, _ in os.walk(self._top):
            sync(top)
        os.replace(self._new, os.path.join(self._top, RECORDS))
        sync(self._top)
        return Copied(self._blobs, self._bytes, 0)


def require_empty(directory: str) -> None:
    """Raises EnvironmentProblem if there is something."""
    try:
        there = os.listdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {directory}: {error.strerror}") from None
    if there:
        raise EnvironmentProblem(f"{directory} is not empty", hint="choose a new directory")


def _problem(what: str, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(f"cannot write {what}: {error.strerror or error}")
