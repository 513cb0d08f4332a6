"""Publisher: gives the team's cache what this store has and it has not, beside the build."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.errors import BuildgraphError
from cache.promises import Names
from cache.recipe import Recipe
from cache.result import Layer, Result
from cache.store import Batch
from compiler.progress.events import Task
from compiler.progress.text import size_text
from compiler.remote_records import form_records, step_records
from worker.maker import maker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from cache.recipe import Ground
    from cache.remote.client import Client
    from cache.remote.writing import BlobWriter, Outgoing
    from cache.store import Table
    from compiler.progress.events import Event
    from compiler.remote_cache import RemoteCache

MOST_WAITING = 10_000
"""Results that wait to be published; what is beyond them the next build publishes."""
TOGETHER = 200
"""Results that are published with the same calls."""
END_SECONDS = 60.0
RATE = 256 << 10
"""How long the end of a build waits for what is left: so long, and a second for so many bytes."""
FAILED_SECONDS = 20.0
"""The same after a build that failed, whose user waits to see why."""
STOP_SECONDS = 5.0
"""For a call that is cut off to notice it."""
MARK_SECONDS = 3 * 86400
"""After which the server is told once more of what it has: it may have cleaned up meanwhile."""
MAX_MARKS = 200_000
_END = None


class Item(NamedTuple):
    """One step's result. recipe: its key, "" for a layer of an image, of which only the listing is shared. grounds:
    what the step's inputs were."""

    recipe: str
    content: str
    result: Result
    grounds: tuple[Ground, ...] = ()

    @property
    def size(self) -> int:
        return (self.result.size or 0) if self.recipe else 0


def base_item(layer: Layer) -> Item:
    """What a layer of an image from outside says. layer: with its listing in the store."""
    return Item("", layer.diff_id, Result(layer, None, 0.0, time.time(), maker()))


class Marks:
    """The table `published`: what a server was given, or gave, so that a build which changes nothing need not ask."""

    def __init__(self, remote: RemoteCache) -> None:
        self._store = remote.store
        self._start = f"{remote.settings.origin}\0{remote.settings.write}\0"

    def missing(self, items: Iterable[Item], server_id: str = "") -> list[Item]:
        """Those that are to be published. server_id: as it is known now, "" if nobody asked yet."""
        by_key = {self._key(item): item for item in items}
        records = self._store.get_many("published", by_key)
        return [item for key, item in by_key.items() if not _is_valid(records.get(key), item.content, server_id)]

    def rows(self, items: Iterable[Item], server_id: str) -> list[tuple[Table, str, bytes]]:
        now = int(time.time())
        return [
            ("published", self._key(item), encoding.canonical([server_id, item.content, now])) for item in items
        ]

    def changed(self, forms: dict[str, bytes]) -> dict[str, bytes]:
        """Those of the forms of layers, by diff_id, that are not published as they are."""
        keys = {f"{self._start}forms\0{diff_id}": diff_id for diff_id in forms}
        known = self._store.get_many("published", keys)
        return {diff_id: forms[diff_id] for key, diff_id in keys.items() if known.get(key) != forms[diff_id]}

    def form_rows(self, forms: dict[str, bytes]) -> list[tuple[Table, str, bytes]]:
        return [("published", f"{self._start}forms\0{diff_id}", value) for diff_id, value in forms.items()]

    def _key(self, item: Item) -> str:
        return f"{self._start}{item.recipe or item.content}"


def _is_valid(record: bytes | None, content: str, server_id: str) -> bool:
    try:
        if record is None:
            return False
        server, of, at = encoding.parse(record)
        same = of == content and (not server_id or server == server_id)
        return bool(same) and 0 <= time.time() - at < MARK_SECONDS
    except encoding.UNREADABLE:
        return False


class Publisher:
    """One thread that publishes what it is given, many results with the same calls.

    A failure is told once, and ends it: what was not published the next build will.
    """

    def __init__(self, remote: RemoteCache, report: Callable[[Event], None]) -> None:
        self._remote = remote
        self._report = report
        self.marks = Marks(remote)
        self._queue: queue.Queue[Item | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._seen: set[tuple[str, str]] = set()
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._left: dict[tuple[str, str], int] = {}
        self._failed = False
        self.published = 0

    @property
    def is_possible(self) -> bool:
        """Whether there is a server that takes something; only known after `RemoteCache.contact`."""
        client, settings = self._remote.client, self._remote.settings
        if client is None or settings.write is None or self._failed:
            return False
        if not client.can.writes and settings.insists:
            who = f" as {client.can.name}" if client.can.name else ""
            where = f"namespace {settings.write}" if settings.write else "its default namespace"
            text = f"the remote {settings.origin} does not let us write to {where}{who}; nothing is published"
            self._remote.tell("write", text)
        return client.can.writes

    def add(self, item: Item) -> None:
        """Publish a result of the store soon. From any thread; does not wait."""
        key = (item.recipe, item.content)
        if not self.is_possible:
            return
        with self._lock:
            if key in self._seen:
                return
            self._seen.add(key)
            self._left[key] = item.size
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            with self._lock:
                self._left.pop(key, None)
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="publisher", daemon=True)
                self._thread.start()

    def finish(self, *, ok: bool) -> None:
        """Wait for what is left, for a while. From the main thread."""
        if self._thread is None:
            return
        with self._lock:
            sizes = list(self._left.values())
        with contextlib.suppress(queue.Full):  # then it is late anyway
            self._queue.put(_END, timeout=END_SECONDS)
        started = time.monotonic()
        count = sum(1 for size in sizes if size)
        line = f"publishing {count} {'layer' if count == 1 else 'layers'}, {size_text(sum(sizes))}"
        if sizes:
            self._report(Task(line, "started", 0.0))
        self._thread.join((END_SECONDS if ok else FAILED_SECONDS) + sum(sizes) / RATE)
        late = self._thread.is_alive()
        if late:
            self._failed = True
            text = "takes too long; the next build publishes the rest"
            self._remote.tell("publish", f"the remote {self._remote.settings.origin} {text}")
            self.stop()
        if sizes:
            status = "failed" if late or self._failed else "done"
            self._report(Task(line, "failed" if status == "failed" else "done", time.monotonic() - started))

    def stop(self) -> None:
        """Let go of what is left."""
        self._failed = True
        client = self._remote.client
        if client is not None:
            client.caller.down = True
            client.close()
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(_END)
            self._thread.join(STOP_SECONDS)

    # in the thread

    def _loop(self) -> None:
        ended = False
        while not ended:
            items: list[Item] = []
            item = self._queue.get()
            while True:
                if item is _END:
                    ended = True
                else:
                    items.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if len(items) >= TOGETHER:
                    self._try(items)
                    items = []
            self._try(items)

    def _try(self, items: list[Item]) -> None:
        client = self._remote.client
        if items and client is not None and not self._failed:
            try:
                self._publish(client, self.marks.missing(items, client.can.server_id))
            except BuildgraphError as error:
                self._failed = True
                self._remote.failed(error, "what is not published yet the next build publishes")
        with self._lock:
            for item in items:
                self._left.pop((item.recipe, item.content), None)

    def _publish(self, client: Client, items: Sequence[Item]) -> None:
        """Blobs first, then the results that name them, then what explains them."""
        from cache.remote.action_results import action_text, name_by
        from cache.remote.local_chunks import LocalChunks
        from cache.remote.writing import BlobWriter

        namespace = self._remote.settings.write or ""
        store = self._remote.store
        writer = BlobWriter(client, store, LocalChunks(store), self._remote.meter)
        blobs: dict[str, Outgoing] = {}
        named: list[tuple[str, str, Recipe, Result, Names]] = []
        for item in items:
            names = self._names(item, client.can.function, blobs)
            if not item.recipe:
                named.append(("layer", item.content, Recipe(_key_of(item.content)), item.result, names))
                continue
            named.append(("content", item.content, Recipe(item.content), item.result, names))
            named.append(("recipe", item.recipe, Recipe(item.content, item.grounds), item.result, names))
        writer.put(namespace, list(blobs.values()))
        if not client.can.is_ours:
            # An action's digest is the name of a blob, which some servers want to see.
            texts = [action_text(kind, key) for kind, key, *_ in named]
            self._put_texts(writer, namespace, {name_by(client.can.function, text): text for text in texts})
        client.put_results(namespace, named)
        client.put_records(namespace, step_records(store, [item.recipe for item in items if item.recipe], self._known))
        store.submit(Batch(records=tuple(self.marks.rows(items, client.can.server_id))))
        self.published += sum(1 for item in items if item.recipe)

    @staticmethod
    def _put_texts(writer: BlobWriter, namespace: str, texts: dict[str, bytes]) -> None:
        absent = writer.missing(namespace, texts)
        writer.put_small(namespace, [(name, texts[name]) for name in absent if name in texts])

    def _names(self, item: Item, function: str, blobs: dict[str, Outgoing]) -> Names:
        """What the server calls the result's blobs, which are noted."""
        from cache.remote.action_results import name_by
        from cache.remote.writing import Outgoing

        store, layer = self._remote.store, item.result.layer
        found = []
        for kind, digest in (
            ("tar", layer.tar if layer is not None and item.recipe else None),
            ("listing", layer.listing if layer is not None else None),
            ("log", item.result.log),
        ):
            if digest is None:
                found.append("")
                continue
            name = str(digest)
            if function == "sha256":
                assert layer is not None
                known = f"{layer.diff_id[7:]}/{digest.size}"
                name = known if kind == "tar" else name_by(function, store.read_blob(digest))
            blobs[name] = Outgoing(digest, name)
            found.append(name)
        return Names(*found)

    def has_new_forms(self, layers: Collection[str]) -> bool:
        """Whether forms of some of the layers are known here and not there."""
        return bool(self.marks.changed(form_records(self._remote.store, layers)))

    def publish_records(self, records: Sequence[tuple[str, str, bytes]], layers: Collection[str]) -> None:
        """Records of the build, and the compressed forms of layers that are known. From the main thread, at the end."""
        client = self._remote.client
        if client is None or not self.is_possible:
            return
        forms = self.marks.changed(form_records(self._remote.store, layers))
        more = [("forms", diff_id, value) for diff_id, value in forms.items()]
        try:
            client.put_records(self._remote.settings.write or "", [*records, *more])
        except BuildgraphError as error:
            self._remote.failed(error, "the build is not noted there")
            return
        self._remote.store.submit(Batch(records=tuple(self.marks.form_rows(forms))))

    def trim(self) -> None:
        """Forget all marks once there are too many: to publish again what is there costs little."""
        store = self._remote.store
        with store.view() as view:
            if view.count("published") <= MAX_MARKS:
                return
        with store.transaction() as view:
            for key in [key for key, _ in view.scan("published")]:
                view.delete("published", key)


def _key_of(diff_id: str) -> str:
    """A content key for a layer of an image, which has none: results have one."""
    return diff_id.removeprefix("sha256:")
