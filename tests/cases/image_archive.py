"""Image: what `docker save` and its like write, as the files that a container would see; no code of the program."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}
_KEPT = 64 << 10
"""Bytes of a file whose content is kept; of larger ones the hash has to do."""


class Node(NamedTuple):
    """One path. group: the paths of one file share one group. content: None for a large file."""

    kind: str
    mode: int
    owner: str
    size: int
    content: bytes | None
    sha256: str
    link: str
    xattrs: tuple[tuple[str, str], ...]
    mtime: int
    group: str


class Image(NamedTuple):
    """files: absolute path → node, all layers applied. names: per layer, the paths that its tar holds."""

    config: dict[str, Any]
    files: dict[str, Node]
    names: list[list[str]]


def read_image(path: Path) -> Image:
    """The only image of a `docker save` archive."""
    with tarfile.open(path) as tar:
        manifest = json.load(_open(tar, "manifest.json"))[0]
        config = json.load(_open(tar, manifest["Config"]))
        files: dict[str, Node] = {}
        names = []
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_open(tar, layer)) as content:
                names.append(_apply(content, files))
    return Image(config, files, names)


def _open(tar: tarfile.TarFile, name: str) -> Any:
    member = tar.getmember(name)
    while member.issym():  # `docker save` of old links equal layers to each other
        folder = name.rpartition("/")[0].split("/")
        target = member.linkname.split("/")
        while target[0] == "..":
            del target[0], folder[-1]
        member = tar.getmember("/".join([*folder, *target]))
    return tar.extractfile(member)


def _apply(tar: tarfile.TarFile, files: dict[str, Node]) -> list[str]:
    """Lay one layer over what is there (image-spec, layer.md)."""
    names = []
    written: dict[str, Node] = {}
    for member in tar:
        path = "/" + member.name.removeprefix("./").strip("/")
        names.append(path)
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            _remove(files, folder, keep_itself=True)
        elif name.startswith(".wh."):
            _remove(files, f"{folder}/{name[4:]}")
        elif path not in ("/", "/."):
            written[path] = _node(tar, member, path, {**files, **written})
    for path, node in written.items():
        if path in files and (node.kind != "directory" or files[path].kind != "directory"):
            _remove(files, path)
        files[path] = node
    return names


def _remove(files: dict[str, Node], path: str, *, keep_itself: bool = False) -> None:
    for other in [other for other in files if other.startswith(f"{path}/") or (other == path and not keep_itself)]:
        del files[other]


def _node(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, known: dict[str, Node]) -> Node:
    if member.islnk():
        return known["/" + member.linkname.removeprefix("./").strip("/")]
    stream = tar.extractfile(member) if member.isreg() else None
    data = stream.read() if stream else b""
    prefix = "SCHILY.xattr."
    xattrs = {key.removeprefix(prefix): value for key, value in member.pax_headers.items() if key.startswith(prefix)}
    return Node(
        _KINDS[member.type],
        member.mode & 0o7777,
        f"{member.uid}:{member.gid}",
        len(data),
        data if len(data) <= _KEPT else None,
        hashlib.sha256(data).hexdigest(),
        member.linkname if member.issym() else "",
        tuple(sorted(xattrs.items())),
        int(member.mtime),
        path,
    )
