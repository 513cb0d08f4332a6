"""EROFS: a read-only filesystem image of metadata alone, whose files' data stands in the layer's tar.

The format is that of the kernel's fs/erofs/erofs_fs.h. The image is mounted as `source`, with the tar as its one
`device`, both plain files (Linux 6.12). Blocks have 512 bytes, because that is how a tar aligns data.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import CorruptLayer, EnvironmentProblem
from cache.xattr import MAX_VALUE

if TYPE_CHECKING:
    from cache.index import Index

BLOCK_BITS = 9
BLOCK_SIZE = 1 << BLOCK_BITS

_SUPERBLOCK_AT = 1024
_DEVICE_SLOT_AT = 1152
_DEVICE_SLOT_SIZE = 128
_INODES_AT = 1280
_SLOT = 32
"""An inode's number is its place in the image in these units, so that the root, the first one, is number 40."""
_INODE_SIZE = 64
_MAX_BLOCKS = 0xFFFFFFFF
_MAX_NAME = 255

_MAGIC = 0xE0F5E1E2
_COMPAT_MTIME = 0x2
_INCOMPAT = 0x4 | 0x8
"""Chunked files and a device table."""

_LAYOUT_PLAIN, _LAYOUT_INLINE, _LAYOUT_CHUNKS = 0, 2, 4
_EXTENDED = 1
_CHUNK_INDEXES = 0x20
_MAX_CHUNK_BITS = 31

_TYPES = {
    FILE: (0o100000, 1),
    DIRECTORY: (0o040000, 2),
    CHARACTER: (0o020000, 3),
    WHITEOUT: (0o020000, 3),
    BLOCK: (0o060000, 4),
    FIFO: (0o010000, 5),
    SYMLINK: (0o120000, 7),
}
"""Kind to (file type bits of the mode, file type in a directory)."""

_XATTR_PREFIXES = (
    ("user.", 1),
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("trusted.", 4),
    ("security.", 6),
)

_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHH38x")
_DEVICE_SLOT = struct.Struct("<64sII56x")
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_CHUNK_INDEX = struct.Struct("<HHI")
_DIRENT = struct.Struct("<QHBB")
_XATTR_HEADER = bytes(12)
_XATTR_ENTRY = struct.Struct("<BBH")


def build(index: Index, tar_size: int, *, opaque_xattr: str = "trusted.overlay.opaque") -> bytes:
    """The image of one layer as overlayfs wants it: whiteouts are 0/0 devices, opaque directories have `opaque_xattr`.

    tar_size: bytes of the tar that `index` describes. The same arguments give the same bytes. CorruptLayer if the index
    asks for what no filesystem can hold, EnvironmentProblem if EROFS cannot. The root's own OPAQUE is marked too, but
    overlayfs heeds no mark there: who mounts leaves the lower layers out.
    """
    return _Image(index, tar_size, opaque_xattr).pack()


class _Image:
    """One image while it is laid out: inodes in order of path, then the blocks of directories and long symlinks."""

    def __init__(self, index: Index, tar_size: int, opaque_xattr: str) -> None:
        self.index = index
        self.tar_blocks = -(-tar_size // BLOCK_SIZE)
        if self.tar_blocks > _MAX_BLOCKS:
            raise EnvironmentProblem("a layer of more than 2 TiB cannot be mounted")
        self.opaque_xattr = opaque_xattr
        self.inodes: list[tuple[Entry, int, bytes]] = []
        self.numbers: dict[str, int] = {}
        self.names: dict[str, list[tuple[bytes, int, int]]] = {}
        self.links: Counter[str] = Counter()
        self.end = _INODES_AT

    def pack(self) -> bytes:
        self._place_inodes()
        self._name_inodes()
        meta_size = -(-self.end // BLOCK_SIZE) * BLOCK_SIZE
        image = bytearray(meta_size)
        blocks: list[bytes] = []
        block = meta_size >> BLOCK_BITS
        names = self.names
        for entry, number, xattrs in self.inodes:
            path, kind, mode, uid, gid, mtime, size, _offset, *_ = entry
            layout, union, links, tail = _LAYOUT_PLAIN, 0, 1, b""
            if kind == DIRECTORY:
                below = names[path]
                content = _directory_blocks(number, self.numbers[path.rpartition("/")[0]], below)
                links = 2 + sum([file_type == 2 for _, _, file_type in below])
                size, union = len(content), block
                blocks.append(content + bytes(-size % BLOCK_SIZE))
                block += -(-size >> BLOCK_BITS)
            else:
                links += self.links[path]
                if kind == FILE:
                    if size:
                        layout, union, tail = _LAYOUT_CHUNKS, *self._chunk(entry)
                elif kind == SYMLINK:
                    target = entry.link.encode("utf-8", "surrogateescape")
                    size = len(target)
                    if _INODE_SIZE + len(xattrs) + size <= BLOCK_SIZE:
                        layout, tail = _LAYOUT_INLINE, target
                    else:
                        union = block
                        blocks.append(target + bytes(-size % BLOCK_SIZE))
                        block += -(-size >> BLOCK_BITS)
                elif kind in (CHARACTER, BLOCK):
                    # The kernel's new_encode_dev: low byte of the minor, the major, the rest of the minor.
                    union = (entry.minor & 0xFF) | (entry.major << 8) | ((entry.minor & ~0xFF) << 12)
            at = number * _SLOT
            xattr_count = 1 + (len(xattrs) - len(_XATTR_HEADER)) // 4 if xattrs else 0
            _INODE.pack_into(
                image, at, _EXTENDED | layout << 1, xattr_count, _TYPES[kind][0] | mode, 0, size, union, 0,
                uid, gid, mtime, 0, links,
            )  # fmt: skip
            at += _INODE_SIZE
            if xattrs:
                image[at : at + len(xattrs)] = xattrs
                at += len(xattrs)
            if layout == _LAYOUT_CHUNKS:
                at += -at % 8
            if tail:
                image[at : at + len(tail)] = tail
        self._superblock(image, block)
        return b"".join((image, *blocks))

    def _superblock(self, image: bytearray, blocks: int) -> None:
        if blocks > _MAX_BLOCKS:
            raise EnvironmentProblem("a layer with more than 2 TiB of names cannot be mounted")
        root = self.numbers[""]
        slot = _DEVICE_SLOT_AT // _DEVICE_SLOT_SIZE
        _SUPERBLOCK.pack_into(
            image, _SUPERBLOCK_AT, _MAGIC, 0, _COMPAT_MTIME, BLOCK_BITS, 0, root, len(self.inodes), 0, 0,
            blocks, 0, 0, b"", b"", _INCOMPAT, 0, 1, slot,
        )  # fmt: skip
        _DEVICE_SLOT.pack_into(image, _DEVICE_SLOT_AT, b"", self.tar_blocks, 0)

    def _place_inodes(self) -> None:
        """Give each inode its place, in order of path, the root first: its number must fit into 16 bits."""
        index = self.index
        opaque = index.opaque
        entries: list[Entry] = [
            entry
            for entry in index.entries
            if entry.kind != OPAQUE and not (entry.kind == WHITEOUT and index.is_emptied(entry.path))
        ]
        if not entries or entries[0].path:
            entries.insert(0, Entry("", DIRECTORY, 0o755))
        if index.implied:
            entries += [Entry(path, DIRECTORY, 0o755) for path in index.implied]
            entries.sort()
        for entry in entries:
            path, kind = entry.path, entry.kind
            if kind == HARDLINK:
                self.links[entry.link] += 1
                continue
            pairs = entry.xattrs
            if kind == DIRECTORY:
                self.names[path] = []
                if path in opaque:
                    pairs = (*pairs, (self.opaque_xattr, b"y"))
            xattrs = _pack_xattrs(path, pairs) if pairs else b""
            size = _INODE_SIZE + len(xattrs)
            if kind == FILE:
                size += -size % 8 + 8
            elif kind == SYMLINK:
                size += len(entry.link.encode("utf-8", "surrogateescape"))
            if size <= BLOCK_SIZE:
                if self.end % BLOCK_SIZE + size > BLOCK_SIZE:
                    # What is inline must not cross a block; inodes that can be read in one piece are also faster.
                    self.end += -self.end % BLOCK_SIZE
            elif kind == SYMLINK:
                size = _INODE_SIZE + len(xattrs)
            number = self.end // _SLOT
            self.end += -(-size // _SLOT) * _SLOT
            self.numbers[path] = number
            self.inodes.append((entry, number, xattrs))

    def _name_inodes(self) -> None:
        numbers, names = self.numbers, self.names
        for entry, number, _ in self.inodes:
            if entry.path:
                parent, _, name = entry.path.rpartition("/")
                names[parent].append((name.encode("utf-8", "surrogateescape"), number, _TYPES[entry.kind][1]))
        for entry in self.index.entries:
            if entry.kind == HARDLINK:
                first = self.index.get(entry.link)
                if first is None or first.path not in numbers:
                    raise CorruptLayer(f"the hardlink {entry.path!r} has no file")
                parent, _, name = entry.path.rpartition("/")
                file_type = _TYPES[first.kind][1]
                names[parent].append((name.encode("utf-8", "surrogateescape"), numbers[first.path], file_type))

    def _chunk(self, entry: Entry) -> tuple[int, bytes]:
        """(chunk format, chunk index): one chunk that is large enough for the file, in the tar."""
        bits = max(0, (entry.size - 1).bit_length() - BLOCK_BITS)
        if bits > _MAX_CHUNK_BITS or entry.offset % BLOCK_SIZE:
            raise EnvironmentProblem(f"{entry.path!r} cannot be mounted: it has {entry.size} bytes at {entry.offset}")
        start = entry.offset >> BLOCK_BITS
        if start + (-(-entry.size >> BLOCK_BITS)) > self.tar_blocks:
            raise CorruptLayer(f"{entry.path!r} reaches beyond the end of its layer")
        return _CHUNK_INDEXES | bits, _CHUNK_INDEX.pack(0, 1, start)


def _pack_xattrs(path: str, pairs: tuple[tuple[str, bytes], ...]) -> bytes:
    parts = [_XATTR_HEADER]
    for name, value in pairs:
        found = next((row for row in _XATTR_PREFIXES if name.startswith(row[0])), None)
        suffix = name[len(found[0]) :].encode("utf-8", "surrogateescape") if found else b""
        if found is None or len(suffix) > _MAX_NAME or len(value) > MAX_VALUE:
            raise EnvironmentProblem(f"{path!r} cannot be mounted with its extended attribute {name!r}")
        parts += (_XATTR_ENTRY.pack(len(suffix), found[1], len(value)), suffix, value)
        parts.append(bytes(-(_XATTR_ENTRY.size + len(suffix) + len(value)) % 4))
    packed = b"".join(parts)
    if (len(packed) - len(_XATTR_HEADER)) // 4 >= 0xFFFF:
        raise EnvironmentProblem(f"{path!r} cannot be mounted: it has too many extended attributes")
    return packed


def _directory_blocks(number: int, parent: int, below: list[tuple[bytes, int, int]]) -> bytes:
    """A directory's data: names in order of their bytes, in blocks that each have their entries first.

    The last block has its used length only, because the directory's size tells where the last name ends.
    """
    rows = sorted((*below, (b".", number, 2), (b"..", parent, 2)))
    blocks: list[bytes] = []
    start = used = 0
    for at, row in enumerate(rows):
        size = 12 + len(row[0])
        if size > 12 + _MAX_NAME:
            raise CorruptLayer(f"a name of {len(row[0])} bytes is too long: {row[0][:40]!r}…")
        if used + size > BLOCK_SIZE:
            blocks.append(_directory_block(rows[start:at]).ljust(BLOCK_SIZE, b"\0"))
            start, used = at, 0
        used += size
    blocks.append(_directory_block(rows[start:]))
    return b"".join(blocks)


def _directory_block(rows: list[tuple[bytes, int, int]]) -> bytes:
    entries = []
    name_at = _DIRENT.size * len(rows)
    for name, number, file_type in rows:
        entries.append(_DIRENT.pack(number, name_at, file_type, 0))
        name_at += len(name)
    return b"".join(entries + [name for name, _, _ in rows])
