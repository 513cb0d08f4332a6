"""Inventory: everything that a store holds, by kind, with what it takes to say who needs it and what it is worth."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Literal, NamedTuple

from cache.blob_files import INLINE_LIMIT
from cache.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind = Literal["step", "base", "fetch", "mount", "prepared"]
KINDS: tuple[Kind, ...] = ("step", "base", "fetch", "mount", "prepared")
"""step: what a step made: layer, its listing, log. base: layers that images from outside have, and those images'
names. fetch: files and repositories that ADD and contexts fetched. mount: cache mounts. prepared: layers made ready
for mounting."""


class Item(NamedTuple):
    """What can go by itself.

    key: `result:CONTENT`, `layer:DIFF_ID`, `image:NAME|PLATFORM`, `fetch:KEY`, `output:KEY`, `mount:NAME`,
    `prepared:PATH`. blobs: numbers in `Inventory.sizes`. own: bytes of records or of its directory. last: seconds since
    the epoch, 0 if not known. uses: builds that used it. seconds: to make it again. projects: names. images: named
    images that were built here and need it. log: digest of its log, "" for none. title: of the instruction, or what
    it is.
    """

    key: str
    kind: Kind
    blobs: tuple[int, ...]
    own: int
    last: int = 0
    uses: int = 0
    seconds: float = 0.0
    projects: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    log: str = ""
    title: str = ""


class Blobs:
    """Numbers blobs, so that 100,000 items hold small integers. block: of the filesystem, files take whole ones."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._numbers: dict[bytes, int] = {}
        self.sizes = array("q")
        self.holders = array("l")
        self.inline = 0

    def hold(self, *texts: str | None) -> tuple[int, ...]:
        """The numbers of the blobs, each held once more. texts: of `str(Digest)`; None and malformed ones give none."""
        found = []
        for text in dict.fromkeys(texts):
            if text is not None:
                number = self._number(text)
                if number >= 0:
                    self.holders[number] += 1
                    found.append(number)
        return tuple(found)

    def __contains__(self, hash_: str) -> bool:
        return bytes.fromhex(hash_) in self._numbers

    def _number(self, text: str) -> int:
        try:
            digest = Digest.parse(text)
        except ValueError:
            return -1
        key = bytes.fromhex(digest.hash)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.sizes)
            small = digest.size <= INLINE_LIMIT
            self.sizes.append(digest.size if small else self.on_disk(digest.size))
            self.holders.append(0)
            self.inline += digest.size if small else 0
        return number

    def on_disk(self, size: int) -> int:
        return -(-size // self._block) * self._block


class Inventory(NamedTuple):
    """sizes: bytes of each blob. holders: how many items hold it. records: bytes of records that belong to no item.
    unused: of blobs that no item holds, condemned ones among them. overhead: of directories and locks. scratch: of
    running builds, this process among them. reusable: free pages inside the database file, which does not shrink.
    """

    items: list[Item]
    sizes: array[int]
    holders: array[int]
    records: int
    unused: int
    overhead: int
    scratch: int
    reusable: int

    @classmethod
    def nothing(cls) -> Inventory:
        """Of a store that does not exist."""
        return cls([], array("q"), array("l"), 0, 0, 0, 0, 0)

    @property
    def used(self) -> int:
        """Bytes that are in use; what limits count."""
        blobs = sum(size for size, holders in zip(self.sizes, self.holders, strict=True) if holders)
        return blobs + sum(item.own for item in self.items) + self.records + self.unused + self.overhead

    @property
    def total(self) -> int:
        """Bytes on disk."""
        return self.used + self.scratch + self.reusable

    def share(self, item: Item) -> float:
        """Its bytes, of what it shares an equal part."""
        return item.own + sum(self.sizes[blob] / max(1, self.holders[blob]) for blob in item.blobs)

    def size(self, item: Item) -> int:
        """Its bytes, also those that others hold, too."""
        return item.own + sum(self.sizes[blob] for blob in item.blobs)

    def held(self, items: Iterable[Item], *, own: bool = True) -> int:
        """Bytes of some of the items, what several of them hold counted once. own: with their records, too."""
        blobs: set[int] = set()
        total = 0
        for item in items:
            blobs.update(item.blobs)
            total += item.own if own else 0
        return total + sum(self.sizes[blob] for blob in blobs)

    def only(self, items: list[Item]) -> Inventory:
        """As if there were nothing but these."""
        holders = array("l", bytes(len(self.holders) * self.holders.itemsize))
        for item in items:
            for blob in item.blobs:
                holders[blob] += 1
        return Inventory(items, self.sizes, holders, 0, 0, 0, 0, 0)

    def kept_by_images(self) -> Iterator[Item]:
        return (item for item in self.items if item.images)
