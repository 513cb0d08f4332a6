"""Commands that come out otherwise each time: no image is put together from what was made of different outcomes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st

from compiler.graph import ROOTFS, ContextSource, Graph, ImageSource, Node
from tests.compiler import model_tree
from tests.compiler.cache_model import _layer
from tests.compiler.made_up import Definition, definitions
from tests.compiler.model_tree import Tree, with_folders
from tests.compiler.pretended import OTHERWISE, Bench, Observed
from tests.compiler.test_cache_model import CHECKED, MEMORY, OPTIONS


class Trial:
    def __init__(self, directory: Path) -> None:
        self.bench = Bench(directory, varying=True)

    def build(self, made: Definition) -> Observed:
        self.bench.write_context(made.files)
        graph = made.graph(self.bench.image_layer)
        observed = self.bench.build(graph, OPTIONS, made.file, 1)
        note(f"ran {observed.ran}")
        check(graph, observed, made.images(), with_folders(made.files))
        return observed

    def evict(self, draw: Any) -> None:
        results = [key for key, _ in self.bench.store.scan("results")]
        for key in draw(st.lists(st.sampled_from(results), max_size=3, unique=True)) if results else ():
            note(f"evicted {key[:8]}")
            self.bench.forget("results", key)


def check(graph: Graph, observed: Observed, images: dict[str, list[Tree]], files: Tree) -> None:
    """Each step of the image says what its command makes of what the image, and the stages that are known, say."""
    trees: dict[str, list[Tree] | None] = {}
    for node in graph:
        definition = node.definition
        if isinstance(definition, ImageSource):
            trees[node.id] = list(images[definition.name])
        elif isinstance(definition, ContextSource):
            trees[node.id] = [files]
        elif node.kind == "stage":
            trees[node.id] = trees[node.inputs[ROOTFS]]
        else:
            below = [trees[name] for name in node.inputs]
            made = observed.layers.get(node.id)
            if made is not None and all(each is not None for each in below) and not _varies(node):
                merged = [model_tree.merge(each or ()) for each in below]
                assert made == _layer(node, merged), f"{node.id} was made of something else"
            rootfs = below[ROOTFS]
            trees[node.id] = None if made is None or rootfs is None else [*rootfs, made]


def _varies(node: Node) -> bool:
    return getattr(node.definition, "argv", ("",))[-1] == OTHERWISE


@settings(CHECKED, max_examples=150)
@given(st.data())
def test_an_image_is_of_one_piece(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        trial = Trial(Path(directory))
        try:
            made = data.draw(definitions())
            note(str(made))
            first = trial.build(made)
            policies = {step.policy for stage in made.stages for step in stage.steps}
            forced = any(policy.no_cache for policy in policies)
            assert forced or not trial.build(made).ran, "what is known is known, whatever it would say the next time"
            assert first.layers
            for _ in range(3):
                trial.evict(data.draw)
                trial.build(made)
        finally:
            trial.bench.close()
