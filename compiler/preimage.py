"""Preimage: what a recipe key was made of, kept so that a later build can say what is different."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from cache import encoding
from compiler.graph import ROOTFS, ImageSource
from compiler.secret_values import MASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.store import Store, Table
    from compiler.graph import Graph, Node
    from compiler.keys import Keys
    from compiler.secret_values import SecretValues

__all__ = [
    "MASK", "InputNote", "Preimage", "image_preimage", "masked", "parse_preimage", "preimage_of", "read_preimage",
    "standing_on",
]  # fmt: skip
_PARTS = {"operation", "platform", "sources", "rootfs"}


class InputNote(NamedTuple):
    """What an input was, for a sentence about it. text: an image's name, a stage's instruction."""

    node: str
    kind: str
    text: str
    recipe: str


class Preimage(NamedTuple):
    """parts: see `Keys.parts`, with marks in place of secrets once it is `masked`. inputs: as the node numbers them.
    own: the key of what is the step's own, see `Keys.own`."""

    recipe: str
    parts: dict[str, Any]
    inputs: tuple[InputNote, ...]
    title: str
    own: str

    @property
    def operation(self) -> dict[str, Any]:
        found: dict[str, Any] = self.parts["operation"]
        return found

    def encode(self) -> tuple[Table, str, bytes]:
        """As a record of the table `preimages`."""
        value = [self.parts, [list(each) for each in self.inputs], self.title, self.own]
        return "preimages", self.recipe, zlib.compress(encoding.canonical(value), 1)


def read_preimage(store: Store, recipe: str) -> Preimage | None:
    """None if it is not kept, or cannot be read."""
    record = store.get("preimages", recipe) if recipe else None
    try:
        return None if record is None else parse_preimage(recipe, zlib.decompress(record))
    except zlib.error:
        return None


def parse_preimage(recipe: str, data: bytes) -> Preimage | None:
    """Of an unpacked record; None if it cannot be read."""
    try:
        parts, inputs, title, own = encoding.parse(data)
        if not parts.keys() >= _PARTS or not isinstance(parts["operation"], dict):
            return None
        notes = tuple(InputNote(*(str(each) for each in note)) for note in inputs)
        return Preimage(recipe, parts, notes, str(title), str(own))
    except encoding.UNREADABLE:
        return None


def masked(preimage: Preimage, secrets: SecretValues, mark: Callable[[str], str]) -> Preimage:
    """The same with marks in place of secrets, see `SecretValues.marked`."""
    parts = {**preimage.parts, "operation": secrets.marked(preimage.operation, mark)}
    notes = [
        note._replace(node=secrets.marked(note.node, mark), text=secrets.marked(note.text, mark))
        for note in preimage.inputs
    ]
    return preimage._replace(parts=parts, inputs=tuple(notes), title=secrets.marked(preimage.title, mark))


def preimage_of(graph: Graph, keys: Keys, node: Node) -> Preimage:
    """What the step's recipe key is made of now, secrets in clear."""
    parts = keys.parts(node.id)
    below = [graph[name] for name in node.inputs]
    notes = tuple(InputNote(each.id, each.kind, each.text, keys.filesystem(each.id)) for each in below)
    return Preimage(keys.recipe(node.id), parts, notes, node.text, keys.own(node.id))


def standing_on(preimage: Preimage, keys: Keys, node: Node) -> Preimage:
    """The same for those that stand on a step which itself ignores what is below, as COPY --link does."""
    rootfs = keys.filesystem(node.inputs[ROOTFS])
    return preimage._replace(recipe=keys.filesystem(node.id), parts={**preimage.parts, "rootfs": rootfs})


def image_preimage(node: Node, keys: Keys) -> Preimage:
    """The same of an image: its name and digest take the operation's place, so that two can be compared."""
    source = node.definition
    assert isinstance(source, ImageSource)
    layers = [layer.diff_id for layer in source.layers]
    operation = {"is": "Image", "name": source.name, "digest": source.digest, "layers": layers}
    parts = {"operation": operation, "platform": "", "sources": [], "rootfs": ""}
    return Preimage(keys.recipe(node.id), parts, (), node.text, "")
