"""The cache against a model that recomputes everything: never a stale hit, never a run that the keys could have avoided."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from compiler.dockerfile.policy import NO_POLICY
from compiler.options import BuildOptions
from tests.compiler.cache_model import Model
from tests.compiler.graphs import AMD64
from tests.compiler.made_up import BELOW, NAMES_ONLY, TTL, VERSIONS, Definition, copies, definitions, edit, givers
from tests.compiler.model_tree import with_folders
from tests.compiler.pretended import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


OPTIONS = BuildOptions(AMD64)
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where a store is not slowed down by waiting for a disk."""
EQUAL_FOR_COPIES = (0, 1, 2)
"""Of VERSIONS: what a COPY looks at is the same in all of these."""


class Trial:
    """One store, and the model of it."""

    def __init__(self, directory: Path) -> None:
        self.bench = Bench(directory)
        self.model = Model()

    def build(self, made: Definition, options: BuildOptions = OPTIONS, jobs: int = 1) -> list[str]:
        """Build and compare with the model; what ran."""
        self.bench.write_context(made.files)
        graph = made.graph(self.bench.image_layer)
        note(f"build {made}, {options.no_cache=}, {options.no_cache_stages=}")
        expected = self.model.expect(graph, made.images(), with_folders(made.files), options)
        observed = self.bench.build(graph, options, made.file, jobs)
        note(f"ran {observed.ran}; forecast {[(each.node.id, each.status, each.if_same) for each in observed.forecast.outlooks]}")
        self.model.check(expected, observed, alone=jobs == 1)
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


@contextlib.contextmanager
def a_trial() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        trial = Trial(Path(directory))
        try:
            yield trial
        finally:
            trial.bench.close()


CHECKED = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@settings(CHECKED, max_examples=120)
@given(st.data())
def test_any_history_of_builds_agrees_with_the_model(data: st.DataObject) -> None:
    with a_trial() as trial:
        made = data.draw(definitions())
        trial.build(made)
        for _ in range(data.draw(st.integers(2, 6))):
            for _ in range(data.draw(st.sampled_from((1, 2, 0)))):
                note(edit(data.draw, made))
            if data.draw(st.booleans()):
                note(trial.disturb(data.draw))
            again = data.draw(st.sampled_from(((), (), (), tuple(made.names()[:1]), tuple(made.names()[-1:]))))
            options = OPTIONS._replace(no_cache=data.draw(st.integers(0, 9)) == 9, no_cache_stages=again)
            trial.build(made, options, data.draw(st.sampled_from((1, 1, 1, 3))))


@settings(CHECKED, max_examples=120)
@given(copies(), st.lists(st.integers(0, len(VERSIONS) - 1), min_size=1, max_size=4))
def test_what_is_copied_runs_again_only_where_the_image_matters(made: Definition, versions: list[int]) -> None:
    with a_trial() as trial:
        trial.build(made)
        for version in versions:
            made.versions["one"] = version
            ran = trial.build(made)
            assert version not in EQUAL_FOR_COPIES or not ran
            assert not trial.build(made), "nothing changed"


@settings(CHECKED, max_examples=120)
@given(givers(), st.data())
def test_what_is_taken_from_a_stage_counts(made: Definition, data: st.DataObject) -> None:
    with a_trial() as trial:
        trial.build(made)
        for _ in range(3):
            note(edit(data.draw, made, BELOW))
            trial.build(made)


@settings(CHECKED, max_examples=25)
@given(st.data())
def test_names_and_order_of_stages_run_nothing(data: st.DataObject) -> None:
    with a_trial() as trial:
        made = data.draw(definitions())
        for number, stage in enumerate(made.stages):
            made.stages[number] = stage._replace(steps=tuple(step._replace(policy=NO_POLICY) for step in stage.steps))
        trial.build(made)
        for _ in range(3):
            note(edit(data.draw, made, NAMES_ONLY))
            assert not trial.build(made)
