"""Names: what the named images of a store need, from their records and configs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.lmdb_view import View


class NamedImage(NamedTuple):
    """key: `NAME|PLATFORM`. layers: (diff_id, content), lowest first. pulled: it came from outside. config: its blob.
    made_at: seconds since the epoch."""

    key: str
    layers: tuple[tuple[str, str], ...]
    pulled: bool
    config: str
    made_at: float

    @property
    def name(self) -> str:
        return self.key.rpartition("|")[0]


def named_images(view: View, read: Callable[[Digest], bytes | None]) -> Iterator[NamedImage]:
    """All that can be read. read: gives the bytes of a config that is a file."""
    for key, record in view.scan("names"):
        image = read_name(key, record, view, read)
        if image is not None:
            yield image


def read_name(key: str, record: bytes, view: View, read: Callable[[Digest], bytes | None]) -> NamedImage | None:
    """None if the record or the config cannot be read."""
    try:
        value = encoding.parse(record)
        digest = Digest.parse(value["config"])
        data = view.blob(digest) or read(digest)
        if data is None:
            return None
        diff_ids = [str(each) for each in (json.loads(data).get("rootfs") or {}).get("diff_ids") or ()]
        layers = tuple(zip(diff_ids, map(str, value["contents"]), strict=True))
        return NamedImage(key, layers, bool(value["pulled"]), str(digest), float(value["made_at"]))
    except encoding.UNREADABLE:
        return None
