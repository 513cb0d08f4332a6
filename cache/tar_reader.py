"""TarReader: the members of a tar that nobody vouches for, as entries, while its bytes stream by."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, Entry
from cache.errors import CorruptLayer
from cache.tar_header import BLOCK as BLOCK_SIZE
from cache.xattr import MAX_VALUE, is_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_EXTENSION = 1 << 20
"""Bytes of one PAX header or long name, and of all global PAX records together; Go's reader has the same limit."""
MAX_PATH = 8192
"""Bytes of one path: twice of what Linux takes in one call. Work for a path grows with the square of its length."""
MAX_NAME = 255
"""Bytes of one name in a path (Linux, NAME_MAX)."""
MAX_LINK = 4095
"""Bytes that a symlink can hold (Linux, PATH_MAX without its NUL)."""
MAX_FILE = 1 << 40
"""Bytes of one file: half of what a tar can have that is mounted in blocks of 512 bytes."""
MAX_TIME = 1 << 60
MAX_ID = 0xFFFFFFFF

_ZERO_BLOCK = bytes(BLOCK_SIZE)
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"1": HARDLINK,
    b"2": SYMLINK,
    b"3": CHARACTER,
    b"4": BLOCK,
    b"5": DIRECTORY,
    b"6": FIFO,
}
_XATTR = b"SCHILY.xattr."
_DECIMAL = re.compile(rb"(-?)(\d{1,20})(?:\.(\d*))?")
_UNSIGNED = re.compile(rb"\d{1,20}")


class _Extension(NamedTuple):
    """What PAX headers and GNU's long names say about the next member."""

    records: dict[bytes, bytes]
    name: bytes | None = None
    link: bytes | None = None


class TarReader:
    """Iterates over the members; `data` yields the current one's bytes, and what is not read is skipped.

    Reads ustar, PAX with local and global headers, GNU long names and numbers, and V7. Paths are made relative and
    plain; `..` and NUL are refused, as is everything malformed, truncated or absurd: CorruptLayer, with the member's
    name. Entries come as they stand in the tar: a path may come twice, and a hardlink may lead nowhere.
    """

    def __init__(self, chunks: Iterable[bytes], tee: Callable[[bytes], object] | None = None) -> None:
        """tee: is given every chunk before it is read, also those after the archive's end once iteration is over."""
        self._chunks = iter(chunks)
        self._tee = tee
        self._chunk = b""
        self._at = 0
        self._position = 0
        self._left = 0
        self._padding = 0
        self._name = "the first member"
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
        self._chunk, self._at = b"", 0
        while self._fetch():
            pass

    def data(self) -> Iterator[memoryview]:
        """The rest of the current member's data, in pieces that are views of the chunks."""
        while self._left:
            if self._at == len(self._chunk) and not self._fetch():
                raise self._truncated()
            piece = memoryview(self._chunk)[self._at : self._at + self._left]
            size = len(piece)
            self._at += size
            self._position += size
            self._left -= size
            yield piece

    def _fetch(self) -> bool:
        """Make the next chunk that is not empty the current one; False at the end of the stream."""
        for chunk in self._chunks:
            if chunk:
                if self._tee is not None:
                    self._tee(chunk)
                self._chunk, self._at = chunk, 0
                return True
        return False

    def _read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the stream."""
        end = self._at + size
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
        else:
            parts = [self._chunk[self._at :]]
            missing = size - len(parts[0])
            self._at = len(self._chunk)
            while missing and self._fetch():
                part = self._chunk[:missing]
                self._at = len(part)
                missing -= len(part)
                parts.append(part)
            data = b"".join(parts)
        self._position += len(data)
        return data

    def _next(self) -> Entry | None:
        for _ in self.data():
            pass
        if self._padding and len(self._read(self._padding)) < self._padding:
            raise self._truncated()
        self._padding = 0
        extension = _Extension({})
        while True:
            header = self._read(BLOCK_SIZE)
            if header == _ZERO_BLOCK or not header:
                if header and self._read(BLOCK_SIZE) not in (b"", _ZERO_BLOCK):
                    raise CorruptLayer(f"the layer goes on after its end, after {self._name!r}")
                if extension != _Extension({}):
                    raise self._truncated()
                return None
            if len(header) < BLOCK_SIZE:
                raise self._truncated()
            self._verify(header)
            typeflag = header[156:157]
            if typeflag in b"xgLK":
                extension = self._extend(extension, typeflag, self._number(header[124:136], "size"))
            else:
                return self._entry(header, typeflag, extension)

    def _verify(self, header: bytes) -> None:
        stated = self._number(header[148:156], "checksum")
        rest = header[:148] + b"        " + header[156:]
        # Some old programs summed signed characters.
        if sum(rest) != stated and sum(rest) - 256 * sum(byte > 127 for byte in rest) != stated:
            raise CorruptLayer(f"the layer has a broken header after {self._name!r}: its checksum is wrong")

    def _extend(self, before: _Extension, typeflag: bytes, size: int) -> _Extension:
        if not 0 <= size <= MAX_EXTENSION:
            raise CorruptLayer(
                f"the layer has a header of {size} bytes after {self._name!r}, {MAX_EXTENSION} is the most"
            )
        body = self._read(size)
        rest = -size % BLOCK_SIZE
        if len(body) < size or len(self._read(rest)) < rest:
            raise self._truncated()
        if typeflag == b"L":
            return before._replace(name=body.split(b"\0", 1)[0])
        if typeflag == b"K":
            return before._replace(link=body.split(b"\0", 1)[0])
        records = self._records(body)
        if typeflag == b"x":
            return before._replace(records=records)
        self._global.update(records)
        if sum(len(key) + len(value) for key, value in self._global.items()) > MAX_EXTENSION:
            raise CorruptLayer(f"the layer's global headers have more than {MAX_EXTENSION} bytes")
        return before

    def _records(self, body: bytes) -> dict[bytes, bytes]:
        """PAX records, each `LENGTH KEY=VALUE\\n`."""
        records = {}
        at = 0
        while at < len(body):
            space = body.find(b" ", at, at + 8)
            digits = body[at : max(space, at)]
            end = at + int(digits) if digits.isdigit() else 0
            key, equals, value = body[space + 1 : end - 1].partition(b"=")
            if not space < end <= len(body) or body[end - 1 : end] != b"\n" or not equals or not key:
                raise CorruptLayer(f"the layer has a broken PAX header after {self._name!r}")
            if key.startswith(b"GNU.sparse."):
                raise CorruptLayer(f"the layer has a sparse file after {self._name!r}, which is not supported")
            records[key] = value
            at = end
        return records

    def _entry(self, header: bytes, typeflag: bytes, extension: _Extension) -> Entry:
        records = {**self._global, **extension.records} if self._global else extension.records
        raw = records.get(b"path") or extension.name
        if raw is None:
            raw = _ustar_name(header)
        path = self._name = self._path(raw)
        kind = _KINDS.get(typeflag)
        if kind is None:
            what = "is a sparse file" if typeflag == b"S" else f"has the type {typeflag.decode('latin-1')!r}"
            raise CorruptLayer(f"{path!r} {what}, which is not supported")
        if kind == FILE and raw.endswith(b"/") and typeflag != b"7":
            # Before ustar, a directory was a file whose name ends in a slash.
            kind = DIRECTORY
        if not path and kind != DIRECTORY:
            raise CorruptLayer(f"the layer has a member without a name: {raw[:100]!r}")
        size = 0
        if kind == FILE:
            size = self._record(records, b"size", header[124:136], MAX_FILE)
        mode = 0o777 if kind == SYMLINK else self._number(header[100:108], "mode") & 0o7777
        uid = self._record(records, b"uid", header[108:116], MAX_ID)
        gid = self._record(records, b"gid", header[116:124], MAX_ID)
        link = ""
        if kind in (SYMLINK, HARDLINK):
            link = self._link(kind, records.get(b"linkpath") or extension.link or header[157:257].split(b"\0", 1)[0])
        major = minor = 0
        if kind in (CHARACTER, BLOCK):
            major, minor = self._number(header[329:337], "device"), self._number(header[337:345], "device")
            if not (0 <= major <= 0xFFF and 0 <= minor <= 0xFFFFF):
                raise CorruptLayer(f"{path!r} is a device with a number that cannot be: {major}/{minor}")
        self._left = size
        self._padding = -size % BLOCK_SIZE
        xattrs = self._xattrs(records) if records else ()
        mtime = self._time(records, header[136:148])
        offset = self._position if kind == FILE else 0
        return Entry(path, kind, mode, uid, gid, mtime, size, offset, "", link, major, minor, xattrs)

    def _path(self, raw: bytes) -> str:
        """Relative, without `.`, empty names and slashes at the ends."""
        if b"\0" in raw or len(raw) > MAX_PATH:
            raise CorruptLayer(f"the layer has a name that cannot be: {raw[:100]!r}")
        path = raw.decode("utf-8", "surrogateescape")
        if "//" in path or "/." in path or path[:1] in ("", ".", "/") or path[-1] == "/":
            names = [name for name in path.split("/") if name not in ("", ".")]
            if ".." in names:
                raise CorruptLayer(f"the layer has a name with `..`: {path[:100]!r}")
            path = "/".join(names)
        # The mark of a removed file is longer than its name.
        if len(raw) > MAX_NAME and any(
            len(name) > MAX_NAME for name in (b"/" + raw).replace(b"/.wh.", b"/").split(b"/")
        ):
            raise CorruptLayer(f"the layer has a name that is too long: {path[:100]!r}")
        return path

    def _link(self, kind: str, raw: bytes) -> str:
        if kind == HARDLINK:
            return self._path(raw)
        if not raw or b"\0" in raw or len(raw) > MAX_LINK:
            raise CorruptLayer(f"the symlink {self._name!r} leads to what cannot be: {raw[:100]!r}")
        return raw.decode("utf-8", "surrogateescape")

    def _xattrs(self, records: dict[bytes, bytes]) -> tuple[tuple[str, bytes], ...]:
        pairs = []
        for key, value in records.items():
            if key.startswith(_XATTR):
                name = key[len(_XATTR) :].decode("utf-8", "surrogateescape")
                if is_kept(name):
                    if len(value) > MAX_VALUE:
                        raise CorruptLayer(f"{self._name!r} has {len(value)} bytes in the extended attribute {name!r}")
                    pairs.append((name, value))
        return tuple(sorted(pairs))

    def _record(self, records: dict[bytes, bytes], key: bytes, field: bytes, limit: int) -> int:
        value = records.get(key)
        number = self._number(field, key.decode()) if not value else int(value) if _UNSIGNED.fullmatch(value) else -1
        if not 0 <= number <= limit:
            raise CorruptLayer(f"{self._name!r} has a {key.decode()} that cannot be: {value or field!r}")
        return number

    def _time(self, records: dict[bytes, bytes], field: bytes) -> int:
        value = records.get(b"mtime")
        if not value:
            seconds = self._number(field, "mtime")
        else:
            match = _DECIMAL.fullmatch(value)
            if match is None:
                raise CorruptLayer(f"{self._name!r} has an mtime that cannot be: {value[:100]!r}")
            seconds = int(match[2])
            if match[1]:
                # Rounded down, like every other time.
                seconds = -seconds - bool((match[3] or b"").strip(b"0"))
        if abs(seconds) > MAX_TIME:
            raise CorruptLayer(f"{self._name!r} has an mtime that cannot be: {seconds}")
        return seconds

    def _number(self, field: bytes, what: str) -> int:
        number = _parse_number(field)
        if number is None:
            raise CorruptLayer(f"the layer has a {what} that is no number in or after {self._name!r}: {field!r}")
        return number

    def _truncated(self) -> CorruptLayer:
        return CorruptLayer(f"the layer is cut off in or after {self._name!r}")


@lru_cache(maxsize=4096)
def _parse_number(field: bytes) -> int | None:
    """Octal digits, or GNU's base 256 with the top bit set; None for anything else."""
    if field[0] & 0x80:
        number = int.from_bytes(field, "big")
        return number - (1 << 8 * len(field)) if field[0] & 0x40 else number & ((1 << 8 * len(field) - 1) - 1)
    digits = field.strip(b" \0").split(b"\0", 1)[0].rstrip(b" ")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not digits.translate(None, b"01234567") else None


def _ustar_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        # Where star keeps times in the end of the prefix, it says so in the last four bytes.
        end = 476 if header[508:512] == b"tar\0" else 500
        prefix = header[345:end].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name
