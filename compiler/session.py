"""Session: one build, from the text of the Dockerfile to the results of all that its target needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import UsageError
from cache.images import Images
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.forecast import Forecaster
from compiler.http_files import HttpFiles
from compiler.keys import Keys
from compiler.lookup import Lookup
from compiler.lower import Lowering
from compiler.records import StepRecords
from compiler.remote_context import RemoteContexts
from compiler.sources import Sources
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from cache.result import Result
    from compiler.dockerfile.parser import Dockerfile
    from compiler.forecast import Forecast
    from compiler.graph import Graph
    from compiler.options import BuildOptions


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
    ) -> None:
        """Parse, lower and resolve sources. images, library: shared with other sessions on the same store.

        Raises DockerfileError, UsageError, RemoteError.
        """
        self.store = store
        self.options = options
        self.images = images or Images(store)
        self.library = library or LayerLibrary(store, self.images)
        http = HttpFiles(store)
        path = None if definition.remote else definition.dockerfile_path
        remote = RemoteContexts(store, self.library, http)
        self.sources = Sources(store, self.images, http, options, definition.context, path, remote)
        source = definition.source
        if definition.remote:
            source = self._remote_source(definition, remote)
        if source is None:
            raise UsageError("there is no Dockerfile to build")
        self.dockerfile: Dockerfile = parse_dockerfile(source)
        if options.epoch_source:
            from compiler.epoch import resolve_epoch

            options = self.options = resolve_epoch(options, self.dockerfile, remote, definition.remote)
        lowering = Lowering(self.dockerfile, options, self.sources)
        self.graph: Graph = lowering.graph
        self.proxies = lowering.proxies
        self.keys = Keys(self.graph, self.sources.tree)
        self.lookup = Lookup(store)
        context = os.path.realpath(definition.context) if definition.context else definition.remote
        self.records = StepRecords(store, f"{context}:{definition.dockerfile_path or '-'}:{options.platform}")
        self._forecaster = Forecaster(self.graph, self.keys, self.lookup, self.records, self.library, options)

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

    def known(self) -> dict[str, Result]:
        """Results that are there by recipe key, looked up in one batch."""
        return self._forecaster.known()

    def forecast(self) -> Forecast:
        """What a build would do."""
        return self._forecaster.forecast()
