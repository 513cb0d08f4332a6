"""Builds for the model's test: all of the program is real, but commands are pure functions instead of processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.entry import DIRECTORY, FILE, HARDLINK, Entry
from cache.images import Images
from cache.layer_writer import LayerTar, LayerWriter
from cache.lmdb_store import LmdbStore
from cache.result import Result
from cache.store import Batch
from compiler.build_log import BuildLog
from compiler.dispatch import Dispatcher, Given
from compiler.failure import Contradicted
from compiler.fresh import layers_of
from compiler.graph import ContextSource, Graph, Node
from compiler.grounds import Grounds
from compiler.keys import Keys
from compiler.lookup import Lookup
from compiler.needs import needed
from compiler.plan import Plan
from compiler.progress.quiet import QuietReporter
from compiler.records import StepRecords, medians
from compiler.session import Session
from tests.compiler import model_tree
from tests.compiler.model_tree import TEXTS, Tree
from worker.context import ContextTree
from worker.execute import Executor
from worker.ignore import IgnoreRules
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cache.build_record import NodeRecord
    from cache.digest import Digest
    from cache.result import Layer
    from cache.store import Table
    from compiler.forecast import Forecast
    from compiler.options import BuildOptions
    from worker.action import Action


OTHERWISE = "and say otherwise"


class Observed(NamedTuple):
    """What a build did. forecast: what was said before it. ran: ids, in the order in which they ended. nodes: of all
    steps that were not known by recipe. recipes: recipe keys. layers: what each step's layer says; merged: what the
    target's filesystem is. before: what the layer of the step said that each is compared with."""

    forecast: Forecast
    ran: list[str]
    nodes: dict[str, NodeRecord]
    recipes: dict[str, str]
    results: dict[str, Result]
    layers: dict[str, Tree]
    merged: Tree
    before: dict[str, Tree]


class Bench:
    """A store and a context, and builds with them."""

    def __init__(self, directory: Path, *, varying: bool = False) -> None:
        """varying: have commands that say `and say otherwise` write something else whenever they run."""
        self.varying = varying
        self.store = LmdbStore(str(directory / "store"))
        self.store.start_writer()
        self.context = directory / "context"
        self.context.mkdir()
        self._files: Tree = {}
        self._clock = _Clock()
        self._image_layers: dict[object, Layer] = {}

    def write_context(self, files: Tree) -> None:
        """Have just these files in the context; those that stay as they are stay untouched."""
        for path in self._files.keys() - files.keys():
            (self.context / path).unlink()
            if not any((self.context / path).parent.iterdir()):
                (self.context / path).parent.rmdir()
        for path, item in files.items():
            place = self.context / path
            if self._files.get(path) == item:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if item.kind == FILE:
                place.write_text(TEXTS[item.said])
                place.chmod(item.mode)
            else:
                place.symlink_to(item.said)
        self._files = dict(files)

    def image_layer(self, tree: Tree) -> Layer:
        """A layer as one of an image, in the store; each once."""
        key = model_tree.frozen(tree)
        if key not in self._image_layers:
            self._image_layers[key] = self._write_layer(tree)
        return self._image_layers[key]

    def _write_layer(self, tree: Tree) -> Layer:
        library = LayerLibrary(self.store, Images(self.store))
        layer, batch = library.write_layer(lambda fd: _write(tree, fd, 0))
        self.store.commit(batch)
        return layer._replace(content=layer.diff_id)

    def build(self, graph: Graph, options: BuildOptions, file: str, jobs: int) -> Observed:
        """Say what a build would do, and do it, as `Builder` does. file: which Dockerfile it is."""
        asked = _Session(self, graph, options, file)
        forecast, before = asked.forecast(jobs), self._before(asked)
        session = _Session(self, graph, options, file)
        ran: list[str] = []
        try:
            results, nodes = self._turn(session, jobs, ran, strict=False)
        except Contradicted:
            session = _Session(self, graph, options, file)
            results, nodes = self._turn(session, jobs, ran, strict=True)
        rootfs = session.library.rootfs(layers_of(graph, graph.target, results))
        layers = {name: self._layer(session, result) for name, result in results.items()}
        merged = model_tree.items(entry for entry, _ in rootfs.walk())
        recipes = {node.id: session.keys.recipe(node.id) for node in graph}
        return Observed(forecast, ran, nodes, recipes, results, layers, merged, before)

    def _turn(
        self, session: Session, jobs: int, ran: list[str], *, strict: bool
    ) -> tuple[dict[str, Result], dict[str, NodeRecord]]:
        """ran: added to, also if the build has to begin again."""
        graph = session.graph
        found = session.known(strict=strict)
        known = found.results
        wanted = needed(graph, known)
        log = BuildLog(session, "somebody@somewhere")
        for node in graph:
            if node.is_step and node.id in wanted and node.id in known:
                log.known(node, known[node.id])
        executor = _Executor(self, session.library, self._clock)
        plan = Plan(graph, known, medians(session.records.expected()), jobs)
        dispatcher = Dispatcher(
            session, plan, executor, QuietReporter(), Given({}, {}), lambda: jobs, provisional=found.provisional
        )
        try:
            results = dispatcher.run()
        finally:
            ran += dispatcher.ran
            executor.close()
        log.ended(dispatcher.nodes)
        self.store.commit(log.batch(ok=True, image=""))
        return results, dispatcher.nodes

    def _before(self, session: Session) -> dict[str, Tree]:
        recipes = {node.id: found for node in session.graph if node.is_step and (found := session.records.before(node))}
        return {name: self._layer(session, result) for name, result in session.lookup.by_recipe(recipes).items()}

    def _layer(self, session: Session, result: Result) -> Tree:
        assert result.layer is not None
        return model_tree.items(session.library.index(result.layer).entries)

    # what happens to a store between builds

    def forget(self, table: Table, key: str) -> None:
        assert self.store.get(table, key) is not None
        self.store.commit(Batch(deleted=((table, key),)))

    def age(self, key: str, seconds: float) -> None:
        """Have a result be older than it is."""
        record = self.store.get("results", key)
        assert record is not None
        result = Result.from_json(encoding.parse(record))
        older = result._replace(made_at=result.made_at - seconds)
        self.store.commit(Batch(records=(("results", key, encoding.canonical(older.to_json())),)))

    def lose(self, blob: Digest) -> None:
        """Have a blob be gone, as after damage to the store."""
        self.store.commit(Batch())
        with self.store.transaction() as view:
            assert view.delete_blob(blob.hash)

    def close(self) -> None:
        self.store.close()


class _Sources:
    """The part of `Sources` that a build asks for once its graph is there."""

    def __init__(self, bench: Bench) -> None:
        self._tree = ContextTree(str(bench.context), IgnoreRules.from_patterns(()), bench.store)

    def tree(self, node: Node) -> ContextTree | None:
        return self._tree if isinstance(node.definition, ContextSource) else None

    def records(self) -> list[tuple[Table, str, bytes]]:
        return [("stats", key, value) for key, value in self._tree.records()]


class _Session(Session):
    """A session of a graph that came from no Dockerfile."""

    def __init__(self, bench: Bench, graph: Graph, options: BuildOptions, file: str) -> None:
        self.store = bench.store
        self.options = options
        self.library = LayerLibrary(bench.store, Images(bench.store))
        self.sources = _Sources(bench)  # type: ignore[assignment]
        self.graph = graph
        self.proxies: Mapping[str, dict[str, str]] = {}
        self.keys = Keys(graph, self.sources.tree)
        self.lookup = Lookup(bench.store)
        self.grounds = Grounds(self.keys, self.library)
        self.project = file
        self.changed = ()
        self.records = StepRecords(bench.store, file, graph, self.keys)


class _Executor(Executor):
    """The real one, except that commands are pretended."""

    def __init__(self, bench: Bench, library: LayerLibrary, clock: _Clock) -> None:
        super().__init__(bench.store, library, None)
        self._runner = _Runner(library, clock, varying=bench.varying)  # type: ignore[assignment]


class _Clock:
    """A time that no two layers share, so that equal contents in unequal layers are told apart."""

    def __init__(self) -> None:
        self.now = 1

    def tick(self) -> int:
        self.now += 1
        return self.now


class _Runner:
    """Stands where processes would be started."""

    def __init__(self, library: LayerLibrary, clock: _Clock, *, varying: bool) -> None:
        self._library = library
        self._clock = clock
        self._varying = varying

    def run(self, action: Action, *_: object) -> _Changes:
        operation = action.operation
        rootfs = self._library.rootfs(self._library.fetch_all(action.rootfs))
        mounts = []
        for mount in operation.mounts:  # type: ignore[union-attr]
            given = action.inputs[mount.input or 0]
            tree = self._library.tree(given) if isinstance(given, tuple) else given
            found = tree.resolve(mount.source)
            entries = [] if found.entry is None else [entry for entry, _ in tree.walk(found.path)]
            mounts.append(model_tree.items(entries, found.path))
        seen = model_tree.items(entry for entry, _ in rootfs.walk())
        argv, now = operation.argv, self._clock.tick()  # type: ignore[union-attr]
        if self._varying and argv[-1] == OTHERWISE:
            argv = (*argv[:2], f"{argv[2]} {now}")
        return _Changes(model_tree.run(argv, seen, mounts), now)


class _Changes(NamedTuple):
    tree: Tree
    now: int
    path: str = os.devnull + "/none"

    def capture(self, fd: int) -> LayerTar:
        return _write(self.tree, fd, self.now)


def _write(tree: Tree, fd: int, now: int) -> LayerTar:
    writer = LayerWriter(fd)
    for path, item in sorted(tree.items()):
        assert item.kind != HARDLINK
        entry = Entry(path, item.kind, item.mode, item.uid, item.gid, now)
        if item.kind == FILE:
            writer.add(entry, TEXTS[item.said].encode())
        else:
            writer.add(entry if item.kind == DIRECTORY else entry._replace(link=item.said))
    return writer.finish()
