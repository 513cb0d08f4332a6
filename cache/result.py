"""Layer and Result: what an action produced, and how the store writes it down."""

from __future__ import annotations

from typing import Any, NamedTuple

from cache import encoding
from cache.digest import Digest

MAX_VARIES = 50
"""Paths that are named of what differed between two runs."""


class Layer(NamedTuple):
    """One filesystem change set.

    diff_id: `sha256:…` of the tar. content: what keys count: a digest of what the layer says without mtimes
    for layers of ours, the diff_id for layers of images. tar: Digest of the tar; listing: Digest of the encoded
    index; both None while an image's layer has not been fetched.
    """

    diff_id: str
    content: str
    tar: Digest | None = None
    listing: Digest | None = None

    def to_json(self) -> list[str | None]:
        return [
            self.diff_id,
            self.content,
            None if self.tar is None else str(self.tar),
            None if self.listing is None else str(self.listing),
        ]

    @classmethod
    def from_json(cls, value: Any) -> Layer:
        """ValueError or TypeError if the value is not what `to_json` writes."""
        diff_id, content, tar, listing = value
        if not (isinstance(diff_id, str) and isinstance(content, str)):
            raise ValueError("a layer has no diff_id or content")
        return cls(
            diff_id,
            content,
            None if tar is None else Digest.parse(tar),
            None if listing is None else Digest.parse(listing),
        )


class Result(NamedTuple):
    """What one action produced.

    layer: None for an action that changes no filesystem. log: Digest of everything the step printed.
    seconds: wall time of the execution. made_at: seconds since the epoch. made_by: user@machine. varies: paths that
    differed when the action was executed once more, some of them; empty as far as it is known to be deterministic.
    created: when its layer was first made, which images tell: an action that ran again and said the same leaves the
    image as it was. 0 for when it was made.
    """

    layer: Layer | None
    log: Digest | None
    seconds: float
    made_at: float
    made_by: str
    varies: tuple[str, ...] = ()
    created: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "layer": None if self.layer is None else self.layer.to_json(),
            "log": None if self.log is None else str(self.log),
            "seconds": round(self.seconds, 6),
            "made_at": round(self.made_at, 3),
            "made_by": self.made_by,
            **({"varies": list(self.varies)} if self.varies else {}),
            **({"created": round(self.created, 3)} if self.created else {}),
        }

    @property
    def size(self) -> int | None:
        """Bytes of its layer's tar; None if it has none, or that is not known."""
        return None if self.layer is None or self.layer.tar is None else self.layer.tar.size

    @classmethod
    def parse(cls, record: bytes | None) -> Result | None:
        """A record of `results`; None for one that is missing or damaged."""
        try:
            return None if record is None else cls.from_json(encoding.parse(record))
        except encoding.UNREADABLE:
            return None

    @classmethod
    def from_json(cls, value: Any) -> Result:
        """ValueError, KeyError or TypeError if the value is not what `to_json` writes."""
        if value["version"] != 1:
            raise ValueError(f"result of version {value['version']}")
        return cls(
            None if value["layer"] is None else Layer.from_json(value["layer"]),
            None if value["log"] is None else Digest.parse(value["log"]),
            float(value["seconds"]),
            float(value["made_at"]),
            str(value["made_by"]),
            tuple(str(path) for path in value.get("varies", ())),
            float(value.get("created", 0.0)),
        )
