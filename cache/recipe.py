"""Recipe: what is noted under a recipe key: the action that it came to, and on what ground."""

from __future__ import annotations

import re
from typing import NamedTuple

_RECIPE = re.compile(r"([0-9A-Za-z]{1,64})((?: \d{1,4}:[0-9a-f]{32}:(?:[0-9a-f]{32})?)*)")
FINGERPRINT = 32
"""Hex digits of a key that are kept to compare."""


class Ground(NamedTuple):
    """What an input was when the content key was worked out. number: of the input. layers: fingerprint of the contents
    of its layers. seen: of what the step looks at in them; "" for all of it."""

    number: int
    layers: str
    seen: str = ""


class Recipe(NamedTuple):
    """content: the content key. grounds: of the inputs that consist of layers.

    A recipe says how inputs are made, not what came out: one that is evicted and made again may come out otherwise.
    Then a result that was made from the earlier one is not the recipe's any more.
    """

    content: str
    grounds: tuple[Ground, ...] = ()

    @property
    def text(self) -> str:
        return self.content + "".join(f" {ground.number}:{ground.layers}:{ground.seen}" for ground in self.grounds)

    def encode(self) -> bytes:
        return self.text.encode()

    @classmethod
    def parse(cls, record: bytes) -> Recipe | None:
        """None for one that cannot be read."""
        found = _RECIPE.fullmatch(record.decode("ascii", "replace"))
        if found is None:
            return None
        words = (word.split(":") for word in found[2].split())
        return cls(found[1], tuple(Ground(int(number), layers, seen) for number, layers, seen in words))


def content_in(record: bytes) -> str:
    """The content key alone; of a damaged record something that no result has."""
    return record.partition(b" ")[0].decode("ascii", "replace")
