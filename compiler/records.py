"""StepRecords: what earlier builds left about steps: how long an operation takes, what a place in a file last was."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from cache import encoding
from compiler.definition_file import file_key
from compiler.graph import ROOTFS, ImageSource
from compiler.preimage import Preimage, image_preimage, masked, preimage_of, read_preimage, standing_on
from compiler.secret_values import MARK_DIGITS
from worker import file_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.lmdb_store import LmdbStore
    from cache.store import Table
    from compiler.graph import Graph, Node
    from compiler.keys import Keys
    from worker.file_list import Listed

RUNS_KEPT = 7
"""Durations remembered of one operation; their median is what it is expected to take."""
MAX_PLACES = 5000
"""Places remembered of one file; a Dockerfile has some dozens."""

Row = tuple["Table", str, bytes]


class Expected(NamedTuple):
    """Seconds that an operation took in its last runs. median: of them; low, high: the shortest and longest; runs:
    how many are known, at least one."""

    median: float
    low: float
    high: float
    runs: int


class Place(NamedTuple):
    """What a step was when its file was last built. operation, text: keys of its operation and of its instruction.
    kind: the node's, "" if that was not noted."""

    recipe: str
    content: str
    operation: str
    text: str
    kind: str = ""


class _Operation(NamedTuple):
    """seconds: of the last runs, oldest first. recipe: of the last one that used it, in the definition `file`."""

    seconds: tuple[float, ...] = ()
    recipe: str = ""
    file: str = ""


class StepRecords:
    """file: which Dockerfile in which context, so that the same place in a file is found again."""

    def __init__(self, store: LmdbStore, file: str, graph: Graph, keys: Keys) -> None:
        self._store = store
        self.file = file_key(file)
        self._graph = graph
        self._keys = keys
        self._texts: dict[str, str] = {}
        self._known: dict[str, _Operation] | None = None
        self._owns: set[str] | None = None
        self._came: tuple[set[str], set[str]] | None = None
        self._places: dict[str, Place] | None = None
        self._preimages: dict[str, Preimage] = {}
        self._earlier: dict[str, Preimage] = {}
        self._marks: dict[str, str] = {}

    # what is known

    def expected(self) -> dict[str, Expected]:
        """By node: what runs of the same operation took, else of the one that stood at its place; absent if none.

        Not of one of another kind, nor of one that only moved away from there: what came in its stead is new.
        """
        known = self._read_operations()
        found = {}
        for node in self._graph:
            if not node.is_step:
                continue
            seconds = known[self._operation(node)].seconds
            if not seconds:
                place = self._occupant(node)
                if place is not None and place.kind in ("", node.kind):
                    seconds = known[place.operation].seconds
            if seconds:
                found[node.id] = _expected(seconds)
        return found

    @property
    def has_places(self) -> bool:
        """Whether this file was built before."""
        return bool(self._read_places())

    def place(self, node_id: str) -> Place | None:
        """What this place in the file last was."""
        return self._read_places().get(node_id)

    def ever_made(self, node_id: str) -> bool:
        """Whether a step with the same operation and files was ever made here, on whatever it built."""
        if self._owns is None:
            owns = {f"own:{self._keys.own(node.id)}" for node in self._graph if node.is_step}
            self._owns = set(self._store.get_many("places", owns))
        return f"own:{self._keys.own(node_id)}" in self._owns

    def before(self, node: Node) -> str:
        """The recipe key of the nearest earlier step, "" if there is none.

        The one at the same place if it did the same; else the same operation, or the same instruction, elsewhere in
        this file, so that a line that moved is found; else whatever stood at the place, unless it only moved; else the
        same operation in another file. As it was when this was first asked: what the build itself notes since is no
        earlier step.
        """
        place = self.place(node.id)
        key = self._operation(node)
        if place is not None and place.operation == key:
            return place.recipe
        same = self._read_operations().get(key, _Operation())
        if same.recipe and same.file == self.file:
            return same.recipe
        text = self._text(node)
        if place is None or place.text != text:
            moved = next((each for each in self._read_places().values() if each.text == text), None)
            place = moved or self._occupant(node)
        return place.recipe if place is not None else same.recipe

    def _occupant(self, node: Node) -> Place | None:
        """What stood at the node's place; None if nothing did, or if it stands elsewhere now, and did not before."""
        place = self.place(node.id)
        if place is None or place.operation == self._operation(node) or place.text == self._text(node):
            return place
        if self._came is None:
            places = self._read_places()
            here = [(each, places.get(each.id)) for each in self._graph if each.is_step]
            self._came = (
                {self._operation(each) for each, was in here if was is None or was.operation != self._operation(each)},
                {self._text(each) for each, was in here if was is None or was.text != self._text(each)},
            )
        operations, texts = self._came
        return None if place.operation in operations or place.text in texts else place

    def _read_operations(self) -> dict[str, _Operation]:
        """What is known of all operations of the graph, and of those that stood at their places, by key."""
        if self._known is None:
            steps = [node for node in self._graph if node.is_step]
            wanted = {self._operation(node) for node in steps}
            wanted |= {place.operation for node in steps if (place := self.place(node.id)) is not None}
            records = self._store.get_many("places", {f"op:{key}" for key in wanted})
            self._known = {key: _parse_operation(records.get(f"op:{key}")) for key in wanted}
        return self._known

    def preimage(self, node: Node) -> Preimage:
        """What the step's recipe key is made of now."""
        known = self._preimages.get(node.id)
        if known is None:
            known = self._preimages[node.id] = self._masked(preimage_of(self._graph, self._keys, node))
        return known

    def image_preimage(self, node: Node) -> Preimage:
        """The same of an image."""
        return self._masked(image_preimage(node, self._keys))

    def _linked(self, node: Node) -> Preimage | None:
        """What the filesystem's key is made of where that is not the recipe key of its last step."""
        while node.kind == "stage":
            node = self._graph[node.inputs[ROOTFS]]
        if not node.is_step or self._keys.filesystem(node.id) == self._keys.recipe(node.id):
            return None
        return standing_on(self.preimage(node), self._keys, node)

    def filesystem_preimage(self, node: Node) -> Preimage:
        """What the key of the step's whole filesystem is made of now."""
        return self._linked(node) or self.preimage(node)

    def _masked(self, preimage: Preimage) -> Preimage:
        """I4: nothing leaves here, to a record or to an explanation, with a secret in it."""
        return masked(preimage, self._graph.secrets, self._mark)

    def _mark(self, value: str) -> str:
        from compiler.secret_marks import SecretMarks

        found = self._marks.get(value)
        if found is None:
            mark = SecretMarks(self._store.directory).mark("value", value.encode("utf-8", "surrogatepass"))
            found = self._marks[value] = mark[:MARK_DIGITS]
        return found

    def files(self, source: str) -> list[Listed] | None:
        """The files that a COPY source or a mount had when its digest was this; None if that is not known."""
        record = self._store.get("preimages", f"source:{source}")
        try:
            return None if record is None else file_list.decode(record)
        except ValueError:
            return None

    def _read_places(self) -> dict[str, Place]:
        if self._places is None:
            self._places = {}
            record = self._store.get("places", f"at:{self.file}")
            try:
                if record is not None:
                    value = encoding.parse(zlib.decompress(record))
                    self._places = {name: Place(*map(str, place)) for name, place in value["nodes"].items()}
            except (*encoding.UNREADABLE, zlib.error):
                self._places = {}
        return self._places

    # what is noted

    def made(self, node: Node, seconds: float | None) -> list[Row]:
        """Records of a step that ran, or whose result was found by its content (seconds None)."""
        key = f"op:{self._operation(node)}"
        known = self._store.get("places", key)
        times = _parse_operation(known).seconds
        if seconds is not None:
            times = (*times[1 - RUNS_KEPT :], round(seconds, 4))
        value = encoding.canonical({"seconds": times, "recipe": self._keys.recipe(node.id), "file": self.file})
        rows: list[Row] = [("places", f"own:{self._keys.own(node.id)}", b"1"), *self.tried(node)]
        if value != known:
            rows.append(("places", key, value))
        return rows

    def tried(self, node: Node) -> list[Row]:
        """Records of a step, whether it ended well or failed: what its key was made of."""
        rows: list[Row] = [self.preimage(node).encode()]
        below = [self._graph[name] for name in node.inputs]
        rows += [each.encode() for each in map(self._linked, below) if each is not None]
        images = [each for each in below if isinstance(each.definition, ImageSource)]
        rows += [self.image_preimage(image).encode() for image in images]
        for digest, list_files in self._keys.files(node).items():
            source = f"source:{digest}"
            if self._store.get("preimages", source) is None and (files := list_files()) is not None:
                rows.append(("preimages", source, file_list.encode(files)))
        return rows

    def built(self, build: str, places: Mapping[str, Place]) -> Row:
        """The record of what each place is now. build: the key of the build's own record."""
        merged = {**self._read_places(), **places}
        for name in list(merged)[: max(0, len(merged) - MAX_PLACES)]:
            del merged[name]
        value = {"build": build, "nodes": {name: list(place) for name, place in merged.items()}}
        return "places", f"at:{self.file}", zlib.compress(encoding.canonical(value), 1)

    def place_now(self, node: Node, content: str) -> Place:
        return Place(self._keys.recipe(node.id), content, self._operation(node), self._text(node), node.kind)

    def _text(self, node: Node) -> str:
        """The key of the step's instruction."""
        known = self._texts.get(node.id)
        if known is None:
            known = self._texts[node.id] = encoding.key("text", node.text)[:16]
        return known

    def _operation(self, node: Node) -> str:
        """The key of the step's operation."""
        return self._keys.operation(node.id)[:32]

    def earlier(self, recipe: str) -> Preimage | None:
        """What a recipe key was made of. What is a secret today is none in an earlier record either."""
        known = self._earlier.get(recipe)
        if known is None and (found := read_preimage(self._store, recipe)) is not None:
            known = self._earlier[recipe] = self._masked(found)
        return known


def _expected(seconds: tuple[float, ...]) -> Expected:
    ordered = sorted(seconds)
    return Expected(ordered[len(ordered) // 2], ordered[0], ordered[-1], len(ordered))


def medians(expected: Mapping[str, Expected]) -> dict[str, float]:
    """Seconds by node, for the plan."""
    return {name: each.median for name, each in expected.items()}


def _parse_operation(record: bytes | None) -> _Operation:
    """A record's content; nothing for one that is missing or damaged."""
    if record is not None:
        try:
            value: Any = encoding.parse(record)
            return _Operation(tuple(float(each) for each in value["seconds"]), str(value["recipe"]), str(value["file"]))
        except encoding.UNREADABLE:
            pass
    return _Operation()
