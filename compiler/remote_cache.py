"""RemoteCache: the team's cache server as one build uses it: asked once, never trusted, left alone when it fails."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from cache.digest import Digest
from cache.errors import BuildgraphError, CorruptBlob, CorruptLayer, RemoteError
from cache.promises import Promises
from cache.recipe import Recipe
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cache.index import Index
    from cache.lmdb_store import LmdbStore
    from cache.promises import Promise
    from cache.remote.client import Client
    from cache.remote.local_chunks import LocalChunks
    from cache.remote.reading import BlobReader, Traffic
    from cache.remote_settings import RemoteSettings
    from cache.result import Layer


SHORT_LOG = 256 << 10
"""Bytes of a step's output that come with its layer; longer ones come when they are shown."""


class LayerGone(RemoteError):
    """A layer that a server promised cannot be had: the build begins again without it."""

    def __init__(self, diff_id: str, message: str) -> None:
        super().__init__(message, hint="build again; with --no-remote everything is made here")
        self.diff_id = diff_id


class RemoteCache:
    """All methods but `contact` may be called from several threads.

    Nothing of gRPC is loaded before the first contact: a build that finds all it needs here makes none. gRPC starts
    threads, and a process with threads should not fork: whoever needs to fork later sets `before_contact`.
    """

    def __init__(
        self,
        store: LmdbStore,
        settings: RemoteSettings,
        warn: Callable[[str], None],
        *,
        trusted: frozenset[str] = frozenset(),
    ) -> None:
        """warn: is told once what is the matter. trusted: fingerprints of workers; if there are any, the server's word
        for a result is not taken, nor was it: only what one of them has signed counts. why_off: once it is off, as in
        «which does not answer». without: what becomes of whoever uses it then."""
        self.store = store
        self.without = "the build goes on without it"
        self.settings = settings
        self.trusted = trusted
        self.promises = Promises(store, settings.origin, settings.reads, strict=self.strict)
        self.before_contact: Callable[[], None] = lambda: None
        self.off = False
        self.why_off = ""
        self._warn = warn
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._client: Client | None = None
        self._reader: BlobReader | None = None
        self._chunks: LocalChunks | None = None
        self._traffic: Traffic | None = None
        self._reads = list(settings.reads)
        self._forms: dict[str, bytes | None] = {}
        self._checked: set[str] = set()

    @property
    def strict(self) -> bool:
        """Whether only signed results are used."""
        return bool(self.trusted)

    # contact

    @property
    def client(self) -> Client | None:
        """The connection; None before `contact`, and once the server is left alone."""
        return None if self.off else self._client

    def contact(self) -> bool:
        """Connect if that was not tried yet; whether there is a connection. From the main thread. Raises
        EnvironmentProblem for certificates that are none: who named them wants them used."""
        if self._client is None and not self.off:
            self.before_contact()
            try:
                self._connect()
            except RemoteError as error:
                self.give_up(error)
        return self.client is not None

    def _connect(self) -> None:
        from cache.remote.client import Client
        from cache.remote.local_chunks import LocalChunks
        from cache.remote.reading import BlobReader, Traffic

        self._client = client = Client(self.settings)
        if client.denied:
            self._reads = client.reads
            said = next(iter(client.denied.values())).message
            self.tell("denied", f"{said}; {_named(list(client.denied))} not asked")
        self._traffic = Traffic()
        self._reader = BlobReader(self._client, self._traffic)
        self._chunks = LocalChunks(self.store)
        self.store.start_writer()  # from here on there are threads

    def give_up(self, error: BuildgraphError) -> None:
        """Leave the server alone from now on."""
        from cache.remote.trouble import RemoteTrouble

        self.off = True
        self.why_off = error.why if isinstance(error, RemoteTrouble) else RemoteTrouble.why
        self.promises.active = False
        self.tell("off", f"{error.message}; {self.without}")

    def tell(self, kind: str, text: str) -> None:
        """Warn, once of each kind."""
        with self._lock:
            if kind in self._warned:
                return
            self._warned.add(kind)
        self._warn(text)

    def failed(self, error: BuildgraphError, what: str) -> None:
        """A call failed. what: what is not done because of that."""
        from cache.remote.trouble import Unreachable

        client = self._client
        if client is not None and client.caller.down:
            self.give_up(error)
        else:
            self.tell("off" if isinstance(error, Unreachable) else what, f"{error.message}; {what}")

    @property
    def meter(self) -> Traffic:
        """Bytes of blobs that came and went. After `contact`."""
        assert self._traffic is not None
        return self._traffic

    # asking

    def ask(self, recipes: Collection[str], contents: Collection[str] = (), bases: Collection[str] = ()) -> None:
        """Look up results by recipe and content key, and listings of images' layers by diff_id; all in one call a
        namespace. What is found is promised from then on."""
        if self.strict:
            return
        left = {"recipe": list(recipes), "content": list(contents), "layer": list(bases)}
        for namespace in list(self._reads):
            client = self.client
            if client is None or not any(left.values()):
                return
            try:
                for kind, keys in left.items():
                    found = client.find_results(namespace, kind, keys) if keys else {}
                    left[kind] = [key for key in keys if key not in found]
                    for key, (recipe, promise) in found.items():
                        self._note(kind, key, recipe, promise)
            except BuildgraphError as error:
                self._not_asked(namespace, error)

    def _not_asked(self, namespace: str, error: BuildgraphError) -> None:
        from cache.remote.trouble import Denied, Unreachable

        if isinstance(error, Denied):
            self._reads.remove(namespace)
        gone = isinstance(error, Unreachable)
        self.failed(error, "the build goes on without it" if gone else f"{_named([namespace])} not asked")

    def _note(self, kind: str, key: str, recipe: Recipe, promise: Promise) -> None:
        layer = promise.result.layer
        if kind == "layer":
            if layer is not None and layer.diff_id == key and layer.content == key:
                self.promises.note_base(key, promise)
        elif (kind == "recipe" or recipe.content == key) and (layer is None or promise.names.tar):
            self.promises.note(recipe, promise, key if kind == "recipe" else "")

    def find_content(self, key: str) -> Promise | None:
        """The result of an action, asked for if it is not known."""
        known = self.promises.results((key,)).get(key)
        if known is None and self.client is not None:
            if self.strict:
                self._ask_signed(key)
            else:
                self.ask((), (key,))
            known = self.promises.results((key,)).get(key)
        return known

    def _ask_signed(self, key: str) -> None:
        from compiler.fleet.signed_results import find_signed

        for namespace in list(self._reads):
            client = self.client
            if client is None:
                return
            try:
                promise = find_signed(client, namespace, key, self.trusted)
            except BuildgraphError as error:
                self._not_asked(namespace, error)
                continue
            if promise is not None:
                self.promises.note(Recipe(key), promise)
                return

    def drop_lost(self, promises: Iterable[Promise]) -> list[str]:
        """Ask whether the server still has the bytes of these; what it has not is not promised any more: diff_ids."""
        from cache.remote.writing import BlobWriter

        owners: dict[str, dict[str, str]] = {}
        for promise in promises:
            layer = promise.result.layer
            if layer is not None and layer.diff_id not in self._checked:
                self._checked.add(layer.diff_id)
                names = (name for name in (promise.names.tar, promise.names.listing) if name)
                owners.setdefault(promise.origin.namespace, {}).update(dict.fromkeys(names, layer.diff_id))
        lost: list[str] = []
        for namespace, owner in owners.items():
            client, chunks = self.client, self._chunks
            if client is not None and chunks is not None:
                try:
                    absent = BlobWriter(client, self.store, chunks, self.meter).missing(namespace, owner)
                    lost += [owner[name] for name in absent if name in owner]
                except RemoteError as error:  # then it turns out when they are fetched
                    if client.caller.down:
                        self.give_up(error)
        for diff_id in dict.fromkeys(lost):
            self.promises.drop(diff_id, refuse=False)
        return lost

    # bytes

    def fetch(self, promise: Promise) -> tuple[Layer, Index]:
        """A promised layer, verified, in the store. Raises LayerGone, StoreProblem."""
        from cache.remote.layer_fetch import fetch_layer

        layer = promise.result.layer
        assert layer is not None
        reader, chunks = self._reader, self._chunks
        if self.client is None or reader is None or chunks is None:
            if self.off:
                self.lose(layer, None)
            text = f"the layer {layer.diff_id} is only at {promise.origin.server}, which is out of reach"
            raise LayerGone(layer.diff_id, text)
        try:
            return fetch_layer(self.store, reader, chunks, promise)
        except RemoteError as error:
            self.lose(layer, error)
            raise LayerGone(layer.diff_id, error.message) from None

    def lose(self, layer: Layer, error: RemoteError | None) -> None:
        """Nothing that needs this layer is promised any more."""
        from cache.remote.trouble import Missing

        wrong = isinstance(error, CorruptBlob | CorruptLayer)
        if error is not None and not isinstance(error, Missing):
            if wrong:
                self.tell(f"wrong {error.message}", f"{error.message}; the step is run here")
            else:
                self.failed(error, "what it promised is made here")
        # If it is not gone but out of reach, it is not asked again by this build.
        self.promises.drop(layer.diff_id, refuse=not isinstance(error, Missing))

    def read_listing(self, diff_id: str) -> bytes | None:
        """The encoded index of a promised layer; None if it cannot be had."""
        kept = self.promises.listing(diff_id)
        if kept is not None:
            return kept
        promise = self.promises.layer(diff_id) or self.promises.base(diff_id)
        if promise is None or not promise.names.listing or self.client is None or self._reader is None:
            return None
        try:
            data = self._reader.read(promise.origin.namespace, promise.names.listing)
        except BuildgraphError as error:
            self._listing_lost(diff_id, error)
            return None
        self.promises.note_listing(diff_id, data)
        return data

    def _listing_lost(self, diff_id: str, error: BuildgraphError) -> None:
        from cache.remote.trouble import Missing

        if isinstance(error, CorruptBlob):
            self.tell(f"wrong {error.message}", error.message)
        elif not isinstance(error, Missing):
            self.failed(error, "what it has is not looked at")
        self.promises.drop(diff_id, refuse=not isinstance(error, Missing))

    def read_log(self, promise: Promise) -> bytes | None:
        """What a step printed; None if it cannot be had."""
        log = promise.result.log
        if self.client is None or self._reader is None or not promise.names.log or log is None:
            return None
        with contextlib.suppress(RemoteError):
            data = self._reader.read(promise.origin.namespace, promise.names.log)
            return data if Digest.of(data) == log else None
        return None

    def read_logs(self, promises: Iterable[Promise]) -> dict[Digest, bytes]:
        """Short ones of many steps, as far as they can be had."""
        wanted: dict[str, dict[str, Digest]] = {}
        for promise in promises:
            if promise.result.log is not None and promise.result.log.size <= SHORT_LOG:
                wanted.setdefault(promise.origin.namespace, {})[promise.names.log] = promise.result.log
        found: dict[Digest, bytes] = {}
        for namespace, names in wanted.items():
            if self.client is not None and self._reader is not None:
                with contextlib.suppress(RemoteError):
                    for name, data in self._reader.small(namespace, list(names)).items():
                        if Digest.of(data) == names[name]:
                            found[names[name]] = data
        return found

    # records of the team

    def forms(self, diff_id: str) -> bytes | None:
        """Compressed forms of a promised layer; of all that are promised, once one is asked for."""
        if self.client is None or self.strict or self.promises.layer(diff_id) is None:
            return None
        with self._lock:
            if diff_id not in self._forms:
                wanted = {diff_id, *self.promises.layers()} - self._forms.keys()
                self._forms.update(dict.fromkeys(wanted))
                self._ask_forms(wanted)
            return self._forms[diff_id]

    def _ask_forms(self, diff_ids: set[str]) -> None:
        from compiler.remote_records import read_forms

        try:
            found = {diff_id: read_forms(value) for diff_id, value in self.find_records("forms", diff_ids).items()}
        except BuildgraphError:
            return  # then they are packed here
        self._forms.update(found)
        rows = tuple(("forms", diff_id, value) for diff_id, value in found.items() if value is not None)
        self.store.submit(Batch(records=rows))  # type: ignore[arg-type]  # a table's name is a literal

    def find_records(self, kind: str, keys: Iterable[str]) -> dict[str, bytes]:
        """Those of the records that a namespace which is read has. Raises RemoteError."""
        found: dict[str, bytes] = {}
        left = list(dict.fromkeys(keys))
        for namespace in self._reads:
            if self.client is not None and left:
                found.update(self.client.find_records(namespace, kind, left))
                left = [key for key in left if key not in found]
        return found

    def list_builds(self, project: str = "", made_by: str = "", limit: int = 0) -> dict[str, bytes]:
        """Records of builds by their keys, newest first in each namespace. Raises RemoteError."""
        found: dict[str, bytes] = {}
        for namespace in self._reads:
            if self.client is not None:
                for key, value in self.client.list_builds(namespace, project, made_by, limit).items():
                    found.setdefault(key, value)
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
            self.off = True


def _named(namespaces: list[str]) -> str:
    """`namespace a is`, `namespaces a and b are`."""
    if namespaces == [""]:
        return "its default namespace is"
    names = " and ".join(name or "the default one" for name in namespaces)
    return f"namespace {names} is" if len(namespaces) == 1 else f"namespaces {names} are"
