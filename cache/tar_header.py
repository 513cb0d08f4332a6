"""TarHeaders: packs entries as ustar headers, with PAX records only for what ustar cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 512

_PADDING = tuple(bytes(n) for n in range(BLOCK))
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777
_MAX_CACHED = 4096
"""Distinct (mode, owner, time, type) that are remembered: a tree has a handful, or as many as it has files."""


def padding(size: int) -> bytes:
    """The zero bytes that follow `size` bytes of data up to the next block."""
    return _PADDING[-size % BLOCK]


def pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts itself (POSIX pax, "extended header")."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    # One more digit may be needed by the digits themselves: 98 + 2 is 100.
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(name, prefix) as ustar divides a long path, or None when no slash stands where one is needed."""
    if len(name) <= 100:
        return name, b""
    cut = name.find(b"/", len(name) - 101, len(name) - 1)
    if cut < 0 or cut > 155:
        return None
    return name[cut + 1 :], name[:cut]


class TarHeaders:
    """Packs headers deterministically; remembers the parts that repeat from file to file. Not for parallel use."""

    def __init__(self) -> None:
        self._repeated: dict[tuple[int, int, int, int, bytes], tuple[bytes, bytes, bytes, int]] = {}

    def pack(
        self,
        name: bytes,
        typeflag: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: Iterable[tuple[str, bytes]] = (),
    ) -> bytes:
        """The header of one member: a multiple of 512 bytes, PAX header included where one is needed.

        mtime: whole seconds, any sign. size: of the data that follows. device: (major, minor).
        """
        records: list[bytes] = []
        parts = _split(name)
        if parts is None:
            records.append(pax_record(b"path", name))
            parts = name[:100], b""
        if len(link) > 100:
            records.append(pax_record(b"linkpath", link))
            link = link[:100]
        if size > _MAX_OCTAL_11:
            records.append(pax_record(b"size", b"%d" % size))
            size = 0
        if not 0 <= mtime <= _MAX_OCTAL_11:
            records.append(pax_record(b"mtime", b"%d" % mtime))
            mtime = 0
        if uid > _MAX_OCTAL_7:
            records.append(pax_record(b"uid", b"%d" % uid))
            uid = 0
        if gid > _MAX_OCTAL_7:
            records.append(pax_record(b"gid", b"%d" % gid))
            gid = 0
        for key, value in xattrs:
            records.append(pax_record(b"SCHILY.xattr." + key.encode("utf-8", "surrogateescape"), value))
        header = self._ustar(parts[0], parts[1], typeflag, mode, uid, gid, mtime, size, link, device)
        if not records:
            return header
        records.sort()
        body = b"".join(records)
        pax_name = b"PaxHeaders/" + name.rstrip(b"/").rpartition(b"/")[2][:80]
        pax = self._ustar(pax_name, b"", b"x", 0o644, 0, 0, 0, len(body), b"", (0, 0))
        return b"".join((pax, body, padding(len(body)), header))

    def _ustar(
        self,
        name: bytes,
        prefix: bytes,
        typeflag: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        size: int,
        link: bytes,
        device: tuple[int, int],
    ) -> bytes:
        key = (mode, uid, gid, mtime, typeflag)
        plain = not link and device == (0, 0)
        repeated = self._repeated.get(key) if plain else None
        if repeated is None:
            owner = b"%07o\0%07o\0%07o\0" % (mode, uid, gid)
            time = b"%011o\0" % mtime
            tail = typeflag + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"%07o\0%07o\0" % device
            # The checksum field itself counts as eight spaces.
            repeated = owner, time, tail, sum(owner) + sum(time) + sum(tail) + 8 * 32
            if plain:
                if len(self._repeated) >= _MAX_CACHED:
                    self._repeated.clear()
                self._repeated[key] = repeated
        owner, time, tail, base = repeated
        length = b"%011o\0" % size
        checksum = base + sum(name) + sum(prefix) + sum(length)
        # The prefix has 155 bytes, and 12 more fill the block.
        return b"".join(
            (name.ljust(100, b"\0"), owner, length, time, b"%06o\0 " % checksum, tail, prefix.ljust(167, b"\0"))
        )
