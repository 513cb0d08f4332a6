"""The cache against a model that recomputes everything: never a stale hit, never a run that the keys could have avoided."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from compiler.options import BuildOptions
from tests.compiler.cache_model import Model
from tests.compiler.graphs import AMD64
from tests.compiler.made_up import TTL, Definition, definitions, edit
from tests.compiler.model_tree import Tree, frozen, with_folders
from tests.compiler.pretended import Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.result import Layer

OPTIONS = BuildOptions(AMD64)


class Trial:
    """One store, and the model of it."""

    def __init__(self, directory: Path) -> None:
        self.bench = Bench(directory)
        self.model = Model()
        self._image_layers: dict[object, Layer] = {}
        self.ran: list[str] = []

    def _image_layer(self, tree: Tree) -> Layer:
        key = frozen(tree)
        if key not in self._image_layers:
            self._image_layers[key] = self.bench.image_layer(tree)
        return self._image_layers[key]

    def build(self, made: Definition, options: BuildOptions = OPTIONS, jobs: int = 1) -> list[str]:
        """Build and compare with the model; what ran."""
        self.bench.write_context(made.files)
        graph = made.graph(self._image_layer)
        note(f"build {made}, {options.no_cache=}, {options.no_cache_stages=}")
        expected = self.model.expect(graph, made.images(), with_folders(made.files), options)
        observed = self.bench.build(graph, options, made.file, jobs)
        note(f"ran {observed.ran}; forecast {[(each.node.id, each.status, each.if_same) for each in observed.forecast.outlooks]}")
        self.model.check(made.file, expected, observed, alone=jobs == 1)
        return observed.ran

    def disturb(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
        """Have something happen to a result between builds."""
        model = self.model
        what = draw(st.sampled_from(("evicted", "lost", "aged", "unrecorded")))
        if what == "unrecorded" and model.recorded:
            recipe = draw(st.sampled_from(sorted(model.recorded)))
            self.bench.forget("recipes", model.real_recipes[recipe])
            del model.recorded[recipe]
        usable = [key for key in sorted(model.made) if model.usable(key)]
        if not usable:
            return "nothing"
        key = draw(st.sampled_from(usable))
        result = model.made[key]
        if what == "evicted":
            self.bench.forget("results", result.real)
            del model.made[key]
        elif what == "lost":
            self.bench.lose(result.tar)
            model.lost.add(result.tar)
        elif what == "aged":
            self.bench.age(result.real, 2 * TTL)
            model.made[key] = result._replace(old=True)
        return f"{what} {key}"

    def close(self) -> None:
        self.bench.close()


@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_history_of_builds_agrees_with_the_model(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trial = Trial(Path(directory))
        try:
            made = data.draw(definitions())
            trial.build(made)
            for _ in range(data.draw(st.integers(1, 6))):
                for _ in range(data.draw(st.integers(0, 2))):
                    note(edit(data.draw, made))
                for _ in range(data.draw(st.integers(0, 1))):
                    note(trial.disturb(data.draw))
                stages = data.draw(st.sampled_from(((), (), (), tuple(made.names()[:1]), tuple(made.names()[-1:]))))
                options = OPTIONS._replace(no_cache=data.draw(st.integers(0, 9)) == 9, no_cache_stages=stages)
                trial.build(made, options, data.draw(st.sampled_from((1, 1, 1, 3))))
        finally:
            trial.close()
