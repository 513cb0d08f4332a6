"""StepRecords: what earlier builds left about steps: how long an operation takes, what a place in a file last was."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from cache import encoding
from cache.build_record import BuildRecord, find_build
from compiler.definition_file import file_key
from compiler.graph import ROOTFS, ImageSource
from compiler.preimage import MASK, Preimage, image_preimage, preimage_of, read_preimage, standing_on
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
    """What a step was when its file was last built. operation, text: keys of its operation and of its instruction."""

    recipe: str
    content: str
    operation: str
    text: str


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
        self._operations: dict[str, str] = {}
        self._places: dict[str, Place] | None = None
        self._build = ""

    # what is known

    def expected(self) -> dict[str, Expected]:
        """By node: what runs of the same operation took, else of the one that stood at its place; absent if none."""
        places = self._read_places()
        keys = {node.id: [self._operation(node)] for node in self._graph if node.is_step}
        for name, wanted in keys.items():
            if name in places:
                wanted.append(places[name].operation)
        records = self._store.get_many("places", {f"op:{key}" for wanted in keys.values() for key in wanted})
        found = {}
        for name, wanted in keys.items():
            for key in wanted:
                seconds = _parse_operation(records.get(f"op:{key}")).seconds
                if seconds:
                    found[name] = _expected(seconds)
                    break
        return found

    def place(self, node_id: str) -> Place | None:
        """What this place in the file last was."""
        return self._read_places().get(node_id)

    def ever_made(self, node_id: str) -> bool:
        """Whether a step with the same operation and files was ever made here, on whatever it built."""
        return self._store.get("places", f"own:{self._keys.own(node_id)}") is not None

    def before(self, node: Node) -> str:
        """The recipe key of the nearest earlier step, "" if there is none.

        The one at the same place if it did the same; else the same operation, or the same instruction, elsewhere in
        this file, so that a line that moved is found; else whatever stood at the place; else the same operation in
        another file.
        """
        place = self.place(node.id)
        key = self._operation(node)
        if place is not None and place.operation == key:
            return place.recipe
        same = _parse_operation(self._store.get("places", f"op:{key}"))
        if same.recipe and same.file == self.file:
            return same.recipe
        text = _text_key(node)
        if place is None or place.text != text:
            moved = next((each for each in self._read_places().values() if each.text == text), None)
            place = moved or place
        return place.recipe if place is not None else same.recipe

    def preimage(self, node: Node) -> Preimage:
        """What the step's recipe key is made of now."""
        return preimage_of(self._graph, self._keys, node, self._mark)

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

    def _mark(self, name: str, value: str) -> str:
        from compiler.secret_marks import SecretMarks

        marks = SecretMarks(self._store.directory)
        return marks.mark(f"{MASK}{name}", value.encode("utf-8", "surrogateescape"))[:16]

    def files(self, source: str) -> list[Listed] | None:
        """The files that a COPY source or a mount had when its digest was this; None if that is not known."""
        record = self._store.get("preimages", f"source:{source}")
        try:
            return None if record is None else file_list.decode(record)
        except ValueError:
            return None

    def last_build(self) -> BuildRecord | None:
        """The newest build of this file that is remembered."""
        self._read_places()
        return find_build(self._store, self._build) if self._build else None

    def _read_places(self) -> dict[str, Place]:
        if self._places is None:
            self._places = {}
            record = self._store.get("places", f"at:{self.file}")
            try:
                if record is not None:
                    value = encoding.parse(zlib.decompress(record))
                    self._places = {name: Place(*map(str, place)) for name, place in value["nodes"].items()}
                    self._build = str(value["build"])
            except (*encoding.UNREADABLE, zlib.error):
                self._places = {}
        return self._places

    # what is noted

    def made(self, node: Node, seconds: float | None) -> list[Row]:
        """Records of a step that ran, or whose result was found by its content (seconds None)."""
        key = f"op:{self._operation(node)}"
        preimage = self.preimage(node)
        known = self._store.get("places", key)
        times = _parse_operation(known).seconds
        if seconds is not None:
            times = (*times[1 - RUNS_KEPT :], round(seconds, 4))
        value = encoding.canonical({"seconds": times, "recipe": preimage.recipe, "file": self.file})
        rows: list[Row] = [("places", f"own:{preimage.own}", b"1"), preimage.encode()]
        below = [self._graph[name] for name in node.inputs]
        rows += [each.encode() for each in map(self._linked, below) if each is not None]
        images = [each for each in below if isinstance(each.definition, ImageSource)]
        rows += [image_preimage(image, self._keys).encode() for image in images]
        if value != known:
            rows.append(("places", key, value))
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
        return Place(self._keys.recipe(node.id), content, self._operation(node), _text_key(node))

    def _operation(self, node: Node) -> str:
        """The key of the step's operation."""
        known = self._operations.get(node.id)
        if known is None:
            parts = self._keys.parts(node.id)
            known = self._operations[node.id] = encoding.key("operation", parts["operation"])[:32]
        return known

    def earlier(self, recipe: str) -> Preimage | None:
        """What a recipe key was made of."""
        return read_preimage(self._store, recipe)


def _expected(seconds: tuple[float, ...]) -> Expected:
    ordered = sorted(seconds)
    return Expected(ordered[len(ordered) // 2], ordered[0], ordered[-1], len(ordered))


def medians(expected: Mapping[str, Expected]) -> dict[str, float]:
    """Seconds by node, for the plan."""
    return {name: each.median for name, each in expected.items()}


def _text_key(node: Node) -> str:
    return encoding.key("text", node.text)[:16]


def _parse_operation(record: bytes | None) -> _Operation:
    """A record's content; nothing for one that is missing or damaged."""
    if record is not None:
        try:
            value: Any = encoding.parse(record)
            return _Operation(tuple(float(each) for each in value["seconds"]), str(value["recipe"]), str(value["file"]))
        except encoding.UNREADABLE:
            pass
    return _Operation()
