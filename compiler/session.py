"""Session: one build, from the text of the Dockerfile to the results of all that its target needs."""

from __future__ import annotations

import os
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import UsageError
from cache.images import Images
from compiler.definition_file import definition_file
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.fresh import Known, known_results
from compiler.grounds import Grounds
from compiler.http_files import HttpFiles
from compiler.keys import Keys
from compiler.lookup import Lookup
from compiler.lower import Lowering
from compiler.records import StepRecords
from compiler.remote_context import RemoteContexts
from compiler.secret_values import shown_url
from compiler.sources import Sources
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from compiler.changed import Changed
    from compiler.dockerfile.parser import Dockerfile
    from compiler.forecast import Forecast
    from compiler.forecaster import Forecaster
    from compiler.graph import Graph, Node
    from compiler.options import BuildOptions
    from compiler.reasons import Explained
    from compiler.remote_cache import RemoteCache


class Definition(NamedTuple):
    """What is built.

    source: the text, None if it stands in a remote context. context: the directory, None for none. dockerfile_path:
    where the text was read, or stands in the remote context; None if not from a file. remote: a URL or local archive.
    """

    source: Source | None
    context: str | None
    dockerfile_path: str | None
    remote: str = ""


class Session:
    """Everything of one build that is decided before something runs. Making one reads, but runs and writes nothing."""

    def __init__(
        self,
        store: LmdbStore,
        definition: Definition,
        options: BuildOptions,
        images: Images | None = None,
        library: LayerLibrary | None = None,
        changed: tuple[Changed, ...] = (),
        team: RemoteCache | None = None,
    ) -> None:
        """Parse, lower and resolve sources. images, library: shared with other sessions on the same store. changed:
        paths of contexts that are to be taken for changed, without being so. team: a cache server.

        Raises DockerfileError, UsageError, RemoteError.
        """
        self.store = store
        self.options = options
        self.images = images or Images(store)
        self.library = library or LayerLibrary(store, self.images)
        http = HttpFiles(store)
        path = None if definition.remote else definition.dockerfile_path
        remote = RemoteContexts(store, self.library, http)
        self.sources = Sources(store, self.images, http, options, definition.context, path, remote, changed, team)
        source = definition.source
        if definition.remote:
            source = self._remote_source(definition, remote)
        if source is None:
            raise UsageError("there is no Dockerfile to build")
        self.dockerfile: Dockerfile = parse_dockerfile(source)
        if options.epoch_source:
            from compiler.epoch import resolve_epoch

            options = self.options = resolve_epoch(options, self.dockerfile, remote, definition.remote)
        if options.no_cache_stages:
            from compiler.stage_names import filtered_stages

            stages = filtered_stages(self.dockerfile.stages, options.no_cache_stages)
            options = self.options = options._replace(no_cache_stages=stages)
        lowering = Lowering(self.dockerfile, options, self.sources)
        self.graph: Graph = lowering.graph
        self.proxies = lowering.proxies
        marks = partial(_marks, options, store.directory)
        self.keys = Keys(self.graph, self.sources.tree, marks)
        self.lookup = Lookup(store, team)
        self.grounds = Grounds(self.keys, self.library)
        remote_name = shown_url(definition.remote) or "-"
        self.project = os.path.realpath(definition.context) if definition.context else remote_name
        self.changed = changed
        file = definition_file(definition.context, definition.dockerfile_path, options.platform, definition.remote)
        self.records = StepRecords(store, file, self.graph, self.keys)

    def _remote_source(self, definition: Definition, remote: RemoteContexts) -> Source:
        """Take in the context, and find the Dockerfile in it unless there is one already."""
        layer = self.sources.take_context(definition.remote)
        if definition.source is not None:
            return definition.source
        if layer is None:
            return Source.from_bytes(definition.remote, remote.text(definition.remote))
        names = [definition.dockerfile_path] if definition.dockerfile_path else ["Dockerfile", "dockerfile"]
        for name in names:
            data = remote.file(layer, name)
            if data is not None:
                return Source.from_bytes(name, data)
        raise UsageError(f"there is no {names[0]} in {definition.remote}", hint="name one with -f")

    def known(self, *, strict: bool = False) -> Known:
        """Results that may be used, by recipe key, looked up in one batch."""
        return known_results(self.graph, self.keys, self.lookup, self.options, self.grounds, strict=strict)

    def forecast(self, slots: int) -> Forecast:
        """What a build would do with as many steps at the same time."""
        return self._forecaster.forecast(slots)._replace(changed=tuple(map(str, self.changed)))

    def explain(self, node: Node) -> Explained:
        """What is different from the nearest earlier build of a step."""
        return self._forecaster.explain(node)

    @cached_property
    def _forecaster(self) -> Forecaster:
        from compiler.forecaster import Forecaster  # what only explains, a build with nothing to do need not import

        return Forecaster(
            self.graph, self.keys, self.lookup, self.records, self.library, self.options, self.grounds
        )


def _marks(options: BuildOptions, directory: str, node: Node) -> list[list[str]]:
    from compiler.secret_marks import marks_of

    return marks_of(node.policy, options, directory)
