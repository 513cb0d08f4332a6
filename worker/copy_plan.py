"""What a COPY, ADD or WORKDIR will write, worked out from indexes alone: every entry of its layer, no bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.entry import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry
from cache.errors import DefinitionError
from worker.modes import apply_mode, fixed_mode
from worker.tree import kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.rootfs import Rootfs
    from worker.tree import Tree

DIRECTORY_MODE = 0o755


class Planned(NamedTuple):
    """One entry of the layer. tree, source, number: where a FILE's bytes come from."""

    entry: Entry
    tree: Tree | None = None
    source: Entry | None = None
    number: int = 0


class CopyPlan:
    """Collects entries below one destination. owner, mode: for everything written, None and "" for the source's own."""

    def __init__(
        self,
        rootfs: Rootfs,
        *,
        owner: tuple[int, int] | None,
        mode: str,
        now: int,
        owner_named: bool = False,
    ) -> None:
        """rootfs: what the layer comes to lie on; empty for --link. now: mtime of directories that are made.

        owner_named: the owner is the user's wish, not just what context files always get.
        """
        self._rootfs = rootfs
        self._owner = owner
        self._archive_owner = owner if owner_named else None
        self._mode = mode
        self._now = now
        self._planned: dict[str, Planned] = {}
        self._existing: set[str] = set()
        self._first_names: dict[tuple[int, int, int], str] = {}
        self.made = 0

    def directory(self, path: str) -> None:
        """Have a directory and its parents at this real path: those that exist as they are, new ones made.

        Raises DefinitionError where something else stands.
        """
        parts = path.split("/") if path else []
        for count in range(1, len(parts) + 1):
            prefix = "/".join(parts[:count])
            planned = self._planned.get(prefix)
            if planned is not None:
                if planned.entry.kind != DIRECTORY:
                    raise DefinitionError(f"cannot copy to /{path}: /{prefix} is not a directory")
                continue
            found = self._rootfs.lookup(prefix)
            if found is None:
                uid, gid = self._owner or (0, 0)
                # As docker does: an octal --chmod is for made parents too, a symbolic one is not.
                fixed = fixed_mode(self._mode)
                mode = DIRECTORY_MODE if fixed is None else fixed
                self._planned[prefix] = Planned(Entry(prefix, DIRECTORY, mode, uid, gid, self._now))
                self.made += 1
            elif found[0].kind != DIRECTORY:
                raise DefinitionError(f"cannot copy to /{path}: /{prefix} is not a directory")
            else:
                # Its own metadata, or the layer would change it where it is mounted or unpacked.
                self._planned[prefix] = Planned(found[0]._replace(path=prefix))
                self._existing.add(prefix)

    def file(self, target: str, tree: Tree, entry: Entry, number: int = 0) -> None:
        """Put one entry that is no directory at this path."""
        self.directory(target.rpartition("/")[0])
        self._put(target, tree, entry, number, archive=False)

    def like(self, target: str, tree: Tree, entry: Entry, number: int) -> None:
        """Have a directory with the metadata of one of the tree's."""
        self.directory(target.rpartition("/")[0])
        self._put(target, tree, entry, number, archive=False)

    def content(
        self, target: str, tree: Tree, path: str, *, keep: Callable[[str], bool] | None = None, archive: bool = False
    ) -> None:
        """Put everything below the tree's directory `path` into the directory `target`.

        keep: which relative paths to take; directories that lead to them come too, as they are in the tree.
        archive: the tree was unpacked from one: it may replace what stands in its way, and keeps its owners unless the
        user names others.
        """
        self.directory(target)
        start = len(path) + 1 if path else 0
        prefix = f"{target}/" if target else ""
        everything = ((entry.path[start:], entry, number) for entry, number in tree.walk(path))
        for relative, entry, number in everything if keep is None else kept(tree, path, keep):
            if relative:
                self._put(prefix + relative, tree, entry, number, archive=archive)

    def entries(self) -> list[Planned]:
        """Everything, in the order of a layer."""
        return [self._planned[path] for path in sorted(self._planned)]

    def _put(self, path: str, tree: Tree, entry: Entry, number: int, *, archive: bool) -> None:
        if not archive:
            self._refuse_conflict(path, entry)
        uid, gid = (self._archive_owner if archive else self._owner) or (entry.uid, entry.gid)
        mode = entry.mode
        if self._mode and entry.kind != SYMLINK:
            mode = apply_mode(self._mode, mode, directory=entry.kind == DIRECTORY)
        changed = entry._replace(path=path, uid=uid, gid=gid, mode=mode, offset=0)
        if entry.kind == FILE and entry.offset:
            place = (id(tree), number, entry.offset)
            first = self._first_names.setdefault(place, path)
            if first != path and first in self._planned and first < path:
                changed = Entry(path, HARDLINK, link=first)
        self._planned[path] = Planned(changed, tree, entry, number)

    def _refuse_conflict(self, path: str, entry: Entry) -> None:
        planned = self._planned.get(path)
        if planned is not None and (planned.entry.kind == DIRECTORY) != (entry.kind == DIRECTORY):
            raise DefinitionError(f"cannot copy to /{path}: a directory and a file would stand there")
        parent = path.rpartition("/")[0]
        if parent and parent not in self._existing:
            return
        found = self._rootfs.lookup(path)
        if found is None:
            return
        if (entry.kind == DIRECTORY) != (found[0].kind == DIRECTORY):
            raise conflict(path, entry)
        if entry.kind == DIRECTORY:
            self._existing.add(path)


def conflict(path: str, entry: Entry) -> DefinitionError:
    """What to say of an entry that would stand where the image has something of the other kind."""
    if entry.kind == DIRECTORY:
        return DefinitionError(f"cannot copy a directory to /{path}: the image has no directory there")
    return DefinitionError(f"cannot copy a file to /{path}: the image has a directory there")
