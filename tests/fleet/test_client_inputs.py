"""What a build gives the server before a worker is asked: layers alone, each once, and just what a step may see."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cache.errors import DefinitionError, RemoteError
from cache.images import Images
from cache.lmdb_store import LmdbStore
from compiler.fleet.inputs import Inputs
from worker.action import Action, Cancelled
from worker.context import ContextTree
from worker.ignore import IgnoreRules
from worker.library import LayerLibrary
from worker.operation import Mount, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cache.digest import Digest
    from cache.result import Layer


class Shelf:
    """A server that notes what it is asked and given. fail: the next calls do. slow: it takes nothing."""

    def __init__(self) -> None:
        self.has: set[Digest] = set()
        self.asked: list[Digest] = []
        self.given: list[Digest] = []
        self.fail = 0
        self.slow = False

    def missing(self, blobs: Sequence[Digest], _: Callable[[], bool]) -> list[Digest]:
        time.sleep(0.01)
        if self.fail:
            self.fail -= 1
            raise RemoteError("it does not answer")
        self.asked += blobs
        return [blob for blob in blobs if blob not in self.has]

    def put(self, blobs: Sequence[Digest], cancelled: Callable[[], bool]) -> None:
        while self.slow:
            time.sleep(0.01)
            if cancelled():
                raise Cancelled
        self.given += blobs
        self.has |= set(blobs)


class Place:
    def __init__(self, directory: Path) -> None:
        self.store = LmdbStore(str(directory / "store"))
        self.store.start_writer()
        self.library = LayerLibrary(self.store, Images(self.store))
        self.shelf = Shelf()
        self.inputs = Inputs(self.library, self.shelf)
        self.files = directory / "files"
        (self.files / "sub/deep").mkdir(parents=True)
        (self.files / "sub/deep/a").write_text("a")
        (self.files / "sub/b").write_text("b")
        (self.files / "top").write_text("top")
        os.symlink("sub/deep", self.files / "link")
        self.tree = ContextTree(str(self.files), IgnoreRules(()), self.store)

    def action(self, *sources: str, type_: str = "bind") -> Action:
        mounts = tuple(Mount(type_, f"/m{place}", 1, source, True) for place, source in enumerate(sources))
        run = Run(("true",), (), "/", "", "default", "h", mounts)
        return Action("k" * 64, run, ((), self.tree), "linux/amd64")

    def seen(self, action: Action, number: int) -> dict[str, str]:
        """What a mount of the action shows: path below its target → kind."""
        run = action.operation
        assert isinstance(run, Run)
        mount = run.mounts[number]
        assert mount.input is not None
        layers = action.inputs[mount.input]
        assert isinstance(layers, tuple)
        rootfs = self.library.rootfs(layers)
        found = rootfs.resolve(mount.source)
        assert found.entry is not None
        return {entry.path[len(found.path) :].lstrip("/"): entry.kind for entry, _ in self.library.tree(layers).walk(found.path)}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()


def layers_of(action: Action) -> list[Layer]:
    return [layer for given in action.inputs if isinstance(given, tuple) for layer in given]


def test_a_mount_shows_the_part_that_it_names(place: Place) -> None:
    action = place.inputs.as_layers(place.action("sub", "/", "top", "link", "sub/../sub/deep")).placed()
    assert set(place.seen(action, 0)) == {"", "b", "deep", "deep/a"}
    assert {"top", "sub/deep/a", "link"} <= set(place.seen(action, 1))
    assert set(place.seen(action, 2)) == {""}, "a file is a file"
    assert set(place.seen(action, 3)) == set(place.seen(action, 4)) == {"", "a"}
    assert all(isinstance(given, tuple) for given in action.inputs)


def test_only_what_is_mounted_leaves_the_machine(place: Place) -> None:
    ready = place.inputs.prepare(place.action("sub/deep")).placed()
    names = {entry.path for layer in layers_of(ready) for entry in place.library.index(layer).entries}
    assert names == {"a"}


def test_the_filling_of_a_cache_is_a_layer_too(place: Place) -> None:
    assert set(place.seen(place.inputs.as_layers(place.action("sub", type_="cache")).placed(), 0)) == {"", "b", "deep", "deep/a"}


def test_equal_parts_are_one_layer(place: Place) -> None:
    action = place.inputs.as_layers(place.action("sub/deep", "link", "sub")).placed()
    assert len(set(layers_of(action))) == 2


def test_a_source_that_is_not_there_is_the_dockerfiles_fault(place: Place) -> None:
    with pytest.raises(DefinitionError, match="there is no 'subb' to mount at /m0") as caught:
        place.inputs.prepare(place.action("subb"))
    assert "sub" in caught.value.hint


def test_each_layer_is_asked_about_and_given_once(place: Place) -> None:
    threads = [threading.Thread(target=place.inputs.prepare, args=(place.action("sub", "top"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(place.shelf.given) == len(set(place.shelf.given)) == 4, "tar and listing of two layers"
    assert len(place.shelf.asked) == 4


def test_what_the_server_has_is_not_sent(place: Place) -> None:
    layers = layers_of(place.inputs.as_layers(place.action("sub")).placed())
    place.shelf.has = {blob for layer in layers for blob in (layer.tar, layer.listing) if blob is not None}
    place.inputs.prepare(place.action("sub"))
    assert not place.shelf.given


def test_a_failure_is_told_and_tried_again_by_the_next(place: Place) -> None:
    place.shelf.fail = 1
    with pytest.raises(RemoteError, match="does not answer"):
        place.inputs.prepare(place.action("sub"))
    ready = place.inputs.prepare(place.action("sub")).placed()
    assert {layer.tar for layer in layers_of(ready)} <= place.shelf.has


def test_nobody_waits_for_what_is_not_wanted_any_more(place: Place) -> None:
    place.shelf.slow = True
    stopped, ended = threading.Event(), []

    def prepare(cancelled: Callable[[], bool]) -> None:
        try:
            place.inputs.prepare(place.action("sub"), cancelled)
        except Cancelled:
            ended.append(time.monotonic())

    threads = [threading.Thread(target=prepare, args=(each,)) for each in (stopped.is_set, lambda: len(ended) > 0)]
    for thread in threads:  # one sends, the other one waits for it
        thread.start()
        time.sleep(0.1)
    began = time.monotonic()
    stopped.set()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 2
    assert time.monotonic() - began < 10
    place.shelf.slow = False
    assert place.inputs.prepare(place.action("sub")).placed(), "another build's step may send it again"
