"""Session: one build, from the text of the Dockerfile to the results of all that its target needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cache.images import Images
from compiler.dockerfile.parser import parse_dockerfile
from compiler.forecast import Forecaster
from compiler.http_files import HttpFiles
from compiler.keys import Keys
from compiler.lookup import Lookup
from compiler.lower import Lowering
from compiler.records import StepRecords
from compiler.sources import Sources
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from cache.result import Result
    from compiler.dockerfile.parser import Dockerfile
    from compiler.dockerfile.source import Source
    from compiler.forecast import Forecast
    from compiler.graph import Graph
    from compiler.options import BuildOptions


class Definition(NamedTuple):
    """What is built. context: the directory, None for none. dockerfile_path: where the text was read, None if not
    from a file."""

    source: Source
    context: str | None
    dockerfile_path: str | None


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
        self.dockerfile: Dockerfile = parse_dockerfile(definition.source)
        self.images = images or Images(store)
        self.library = library or LayerLibrary(store, self.images)
        self.sources = Sources(
            store, self.images, HttpFiles(store), options, definition.context, definition.dockerfile_path
        )
        lowering = Lowering(self.dockerfile, options, self.sources)
        self.graph: Graph = lowering.graph
        self.proxies = lowering.proxies
        self.keys = Keys(self.graph, self.sources.tree)
        self.lookup = Lookup(store)
        context = os.path.realpath(definition.context) if definition.context else ""
        self.records = StepRecords(store, f"{context}:{definition.dockerfile_path or '-'}:{options.platform}")
        self._forecaster = Forecaster(self.graph, self.keys, self.lookup, self.records, self.library, options)

    def known(self) -> dict[str, Result]:
        """Results that are there by recipe key, looked up in one batch."""
        return self._forecaster.known()

    def forecast(self) -> Forecast:
        """What a build would do."""
        return self._forecaster.forecast()
