"""Root filesystems as plain dictionaries, and what steps do to them, written down a second time and as simply as can be."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from cache.entry import DIRECTORY, FILE, SYMLINK, WHITEOUT
from worker.operation import Copy, Inline, MakeDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cache.entry import Entry


class Item(NamedTuple):
    """What stands at a path. said: of a file the digest of its bytes, of a link where it points."""

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    said: str = ""


Tree = dict[str, Item]
"""By path, the root left out: it is always the same. Of a layer: also what it removes."""
Trace = tuple[tuple[str, Item | None], ...]
"""What was met on the way along a path, contents of files left out."""
ROOT = Item(DIRECTORY, 0o755)
TEXTS: dict[str, str] = {}
"""Every text that was ever in a file, by its digest."""


def file(text: str, mode: int = 0o644) -> Item:
    digest = blake3(text.encode()).hexdigest()
    TEXTS[digest] = text
    return Item(FILE, mode, said=digest)


def directory(mode: int = 0o755) -> Item:
    return Item(DIRECTORY, mode)


def with_folders(files: Tree) -> Tree:
    """Files with the directories that they are in."""
    above = {path[:place] for path in files for place, letter in enumerate(path) if letter == "/"}
    return {**dict.fromkeys(above, directory()), **files}


def items(entries: Iterable[Entry], start: str = "") -> Tree:
    """Entries of an index, paths relative to `start`."""
    cut = len(start) + 1 if start else 0
    return {
        entry.path[cut:]: Item(entry.kind, entry.mode, entry.uid, entry.gid, entry.digest or entry.link)
        for entry in entries
        if entry.path or start
    }


def frozen(tree: Tree) -> tuple[tuple[str, Item], ...]:
    return tuple(sorted(tree.items()))


def merge(layers: Iterable[Tree]) -> Tree:
    """What a container sees of layers, lowest first."""
    seen: Tree = {}
    for layer in layers:
        for path, item in sorted(layer.items()):
            there = seen.get(path)
            if item.kind != DIRECTORY or (there is not None and there.kind != DIRECTORY):
                seen = {name: each for name, each in seen.items() if name != path and not name.startswith(f"{path}/")}
            if item.kind != WHITEOUT:
                seen[path] = item
    return seen


def resolve(tree: Tree, path: str) -> tuple[str, Item | None, Trace]:
    """Where a path leads, what stands there, and what was met on the way."""
    met: dict[str, Item | None] = {"": ROOT}
    here: Item | None = ROOT
    real: list[str] = []
    waiting = path.split("/")[::-1]
    while waiting:
        name = waiting.pop()
        if not name:
            continue
        if here is None or here.kind != DIRECTORY:
            real.append(name)
            here = None
            continue
        place = "/".join([*real, name])
        found = tree.get(place)
        met[place] = found._replace(said="") if found is not None and found.kind == FILE else found
        if found is not None and found.kind == SYMLINK:
            waiting += found.said.split("/")[::-1]
            continue
        real.append(name)
        here = found
    return "/".join(real), here, tuple(met.items())


def below(tree: Tree, path: str) -> Tree:
    """What stands at a real path and below it, the path itself as ""."""
    if not path:
        return {"": ROOT, **tree}
    found = {name[len(path) + 1 :]: item for name, item in tree.items() if name.startswith(f"{path}/")}
    return {"": tree[path], **found} if path in tree else {}


def selected(tree: Tree, pattern: str) -> list[tuple[str, str]]:
    """What a COPY source names: (name, real path), a wildcard only in its last part."""
    parts = pattern.strip("/").split("/")
    candidates = [parts]
    if "*" in pattern:
        above = resolve(tree, "/".join(parts[:-1]))[0]
        names = {path.split("/")[0] for path in below(tree, above) if path}
        candidates = [[*parts[:-1], name] for name in sorted(names) if fnmatchcase(name, parts[-1])]
    found = [(each[-1], resolve(tree, "/".join(each))) for each in candidates]
    return [(name, path) for name, (path, item, _) in found if item is not None]


def kept(operation: Copy, relative: str) -> bool:
    return not any(relative == each or relative.startswith(f"{each}/") for each in operation.exclude)


def selection(operation: Copy, tree: Tree, pattern: str) -> tuple[object, ...]:
    """All that a source's files say."""
    rows = []
    for name, path in selected(tree, pattern):
        found = below(tree, path)
        folder = found[""].kind == DIRECTORY
        rows.append(("" if folder else name, frozen({each: found[each] for each in found if not each or kept(operation, each)})))
    return tuple(rows)


def owner_of(text: str, rootfs: Tree) -> tuple[int, int]:
    """uid and gid of a name in the one line that all passwd files here have, or of a number."""
    if text.isdigit():
        return int(text), int(text)
    name, _, uid, gid, *_ = TEXTS[rootfs["etc/passwd"].said].split(":")
    assert name == text
    return int(uid), int(gid)


class _Layer:
    """Collects what a COPY or WORKDIR writes on what lies below."""

    def __init__(self, rootfs: Tree, owner: tuple[int, int] | None, mode: int | None) -> None:
        self.rootfs, self.owner, self.mode = rootfs, owner, mode
        self.written: Tree = {}
        self.made = False

    def directory(self, path: str) -> None:
        parts = path.split("/") if path else []
        for count in range(1, len(parts) + 1):
            place = "/".join(parts[:count])
            if place not in self.written and place in self.rootfs:
                self.written[place] = self.rootfs[place]
            elif place not in self.written:
                uid, gid = self.owner or (0, 0)
                self.written[place] = Item(DIRECTORY, self.mode or 0o755, uid, gid)
                self.made = True

    def put(self, path: str, item: Item) -> None:
        self.directory(path.rpartition("/")[0])
        if self.owner is not None:
            item = item._replace(uid=self.owner[0], gid=self.owner[1])
        self.written[path] = item._replace(mode=self.mode) if self.mode and item.kind != SYMLINK else item


def copy(operation: Copy, trees: Mapping[int, Tree], rootfs: Tree) -> Tree:
    """The layer of a COPY."""
    under = {} if operation.link else rootfs
    owner = owner_of(operation.owner, rootfs) if operation.owner else (0, 0) if operation.from_context else None
    layer = _Layer(under, owner, int(operation.mode, 8) if operation.mode else None)
    chosen: list[tuple[str, Tree]] = []
    for source in operation.sources:
        if isinstance(source, Inline):
            chosen.append((source.name, {"": file(source.text)}))
        else:
            tree = trees[source.input]
            chosen += [(name, below(tree, path)) for name, path in selected(tree, source.path)]
    chosen = [(name, found) for name, found in chosen if found[""].kind == DIRECTORY or kept(operation, name)]
    target, there, _ = resolve(under, operation.destination)
    into = operation.destination.endswith("/") or len(chosen) > 1 or (there is not None and there.kind == DIRECTORY)
    for name, found in chosen:
        if found[""].kind != DIRECTORY:
            layer.put(f"{target}/{name}".lstrip("/") if into else target, found[""])
            continue
        layer.directory(target)
        for path in sorted(found):
            if path and kept(operation, path):
                layer.put(f"{target}/{path}".lstrip("/"), found[path])
    return layer.written


def make_directory(operation: MakeDirectory, rootfs: Tree) -> Tree:
    """The layer of a WORKDIR."""
    layer = _Layer(rootfs, owner_of(operation.owner, rootfs) if operation.owner else (0, 0), None)
    layer.directory(resolve(rootfs, operation.path)[0])
    return layer.written if layer.made else {}


def run(argv: Sequence[str], rootfs: Tree, mounts: Sequence[Tree]) -> Tree:
    """The layer of a made-up command, which depends on nothing else. mounts: what each shows, {} for nothing.

    `write PATH TEXT` looks at nothing, `sum PATH` at everything, `part PATH SOURCE` at one file, `mounted PATH` at what
    is mounted, `remove PATH` at whether it is there, `user NUMBER` gives app a number.
    """
    command, *words = argv
    if command == "user":
        words, item = ["etc/passwd"], file(f"app:x:{words[0]}:{words[0]}::/:/bin/sh\n")
    elif command == "write":
        item = file(words[1])
    else:
        looked_at: object = {
            "sum": (frozen(rootfs), [frozen(each) for each in mounts]),
            "part": resolve(rootfs, words[-1])[1],
            "mounted": [frozen(each) for each in mounts],
            "remove": "",
        }[command]
        item = file(f"{command} {blake3(repr(looked_at).encode()).hexdigest()[:16]}")
    place = resolve(rootfs, words[0])[0]
    if command == "remove":
        if place not in rootfs:
            return {}
        item = Item(WHITEOUT)
    layer = _Layer(rootfs, None, None)
    layer.put(place, item)
    return layer.written
