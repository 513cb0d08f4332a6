"""RUNs whose keys a build works out: with the files of a context, and with layers, below fixed names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.images import Images
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.dockerfile.policy import Policy
from compiler.graph import ContextSource, Graph, ImageSource, Node
from compiler.keys import Keys
from worker.action import Action
from worker.context import ContextTree
from worker.copy_plan import CopyPlan
from worker.copy_write import write_plan
from worker.ignore import IgnoreRules
from worker.library import LayerLibrary
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cache.result import Layer
    from worker.operation import Mount

INPUTS = ("base", "context", "one", "two")
"""Of each RUN: number 1 is the context, the others are layers."""
SOURCES = {1: ("", "/", "sub", "sub/deep", "sub/../sub/b", "link", "top", "empty"), 2: ("/", "deep", "b", "gone"), 3: ("/", "a")}
"""What may be mounted of each input that is no root filesystem."""


def fill(directory: Path) -> Path:
    """Files of all kinds that a context has."""
    for name, text in (("sub/deep/a", "a"), ("sub/b", "b"), ("top", "top"), ("sub/deep/é", "")):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "empty").mkdir()
    (directory / "top").chmod(0o4755)
    (directory / "sub/deep").chmod(0o1777)
    os.symlink("sub/deep", directory / "link")
    os.symlink("nowhere", directory / "sub/broken")
    os.mkfifo(directory / "sub/pipe", 0o644)
    return directory


class Keyed:
    """One store with a context and three layers."""

    def __init__(self, directory: Path) -> None:
        self.store = LmdbStore(str(directory / "store"))
        self.store.start_writer()
        self.library = LayerLibrary(self.store, Images(self.store))
        self.tree = ContextTree(str(fill(directory / "files")), IgnoreRules(()), self.store)
        self.layers = {name: (self.layer(path),) for name, path in (("base", ""), ("one", "sub"), ("two", "sub/deep"))}
        self.layers["base"] *= 2

    def layer(self, path: str, tree: ContextTree | None = None) -> Layer:
        """With what is in a directory of a context."""
        plan = CopyPlan(self.library.rootfs(()), owner=None, mode="", now=0)
        plan.content("", tree or self.tree, path)
        layer, batch = self.library.write_layer(lambda fd: write_plan(plan, fd))
        self.store.submit(batch)
        self.store.commit(Batch())
        return layer

    def asked(self, mounts: Sequence[Mount], marks: Sequence[tuple[str, str]] = (), script: str = "x", platform: str = "linux/amd64") -> Action:
        """What a build has executed for a RUN, with its content key."""
        run = Run(("/bin/sh", "-c", script), (("A", "é"),), "/", "", "default", "h", tuple(mounts))
        graph = Graph()
        for name in INPUTS:
            source = ContextSource("") if name == "context" else ImageSource(name, None, self.layers[name], "")
            graph.add(Node(name, "context" if name == "context" else "image", "", name, None, (), source))
        policy = Policy()._replace(secret_in_key=tuple(name for name, _ in marks))
        node = Node("1", "run", "s", "RUN", None, INPUTS, run, platform, policy)
        graph.add(node)
        graph.target = "1"
        keys = Keys(graph, lambda each: self.tree if each.id == "context" else None, lambda _: [list(each) for each in marks])
        key = keys.content(node, self.layers.__getitem__, self.library)
        inputs = tuple(self.tree if name == "context" else self.layers[name] for name in INPUTS)
        return Action(key, run, inputs, platform)

    def close(self) -> None:
        self.store.close()
