"""What a build would do, worked out from records alone: statuses, reasons, times and the critical path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache import encoding
from cache.digest import Digest
from cache.images import Images
from cache.lmdb_store import LmdbStore
from cache.result import Layer, Result
from cache.store import Batch
from compiler.forecast import DEPENDS, HIT, MISS, Forecast
from compiler.forecaster import Forecaster
from compiler.fresh import layers_of
from compiler.grounds import Grounds
from compiler.keys import Keys
from compiler.lookup import Lookup
from compiler.options import BuildOptions
from compiler.reasons import Reason
from compiler.records import StepRecords
from tests.compiler.graphs import AMD64, World, lower, result
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from compiler.lower import Lowering

TEXT = """FROM base AS base
RUN prepare
FROM base AS left
RUN left
FROM base AS right
RUN right
RUN more
FROM scratch
COPY --from=left /x /left
COPY --from=right /x /right
"""


class Bench:
    """One store and what has been built on it."""

    def __init__(self, store: LmdbStore) -> None:
        self.store = store

    def _keys(self, lowering: Lowering) -> Keys:
        return Keys(lowering.graph, lambda _: None)

    def built(self, lowering: Lowering, *names: str, seconds: float = 1.0, content: str = "") -> None:
        """Have results in the store, with their layers."""
        keys = self._keys(lowering)
        for name in names:
            records = StepRecords(self.store, "file", lowering.graph, keys)
            tar = f"tar of {name} {content}".encode()
            layer = Layer(f"sha256:{Digest.of(tar).hash}", f"content {name} {content}", Digest.of(tar), Digest.of(tar))
            made = Result(layer, None, seconds, 0.0, "me@here")
            key = encoding.key("content", [name, content])
            recipe = ("recipes", keys.recipe(name), key.encode())
            kept = ("results", key, encoding.canonical(made.to_json()))
            ran = records.made(lowering.graph[name], seconds)
            place = records.built("build", {name: records.place_now(lowering.graph[name], key)})
            self.store.commit(Batch(records=(place,)))
            self.store.commit(Batch(blobs={Digest.of(tar): tar}, records=(recipe, kept, *ran)))  # type: ignore[arg-type]

    def forecast(self, lowering: Lowering, **options: object) -> Forecast:
        library = LayerLibrary(self.store, Images(self.store))
        chosen = BuildOptions(AMD64)._replace(**options)
        keys = self._keys(lowering)
        records = StepRecords(self.store, "file", lowering.graph, keys)
        grounds = Grounds(keys, library)
        return Forecaster(lowering.graph, keys, Lookup(self.store), records, library, chosen, grounds).forecast(slots=4)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = LmdbStore(str(tmp_path))
    yield Bench(store)
    store.close()


def statuses(forecast: Forecast) -> dict[str, str]:
    return {outlook.node.id: outlook.status for outlook in forecast.outlooks if outlook.node.is_step}


ALL = ("base.1", "left.1", "right.1", "right.2", "3.1", "3.2")


def test_what_was_never_made_runs_whatever_is_below(bench: Bench) -> None:
    forecast = bench.forecast(lower(TEXT))
    assert statuses(forecast) == dict.fromkeys(ALL, MISS)
    assert {outlook.why.reason for outlook in forecast.outlooks if outlook.node.is_step} == {Reason.NEVER_BUILT}


def test_what_was_made_before_waits_for_what_runs_below(bench: Bench) -> None:
    lowering = lower(TEXT)
    bench.built(lowering, *ALL)
    forecast = bench.forecast(lower(TEXT.replace("prepare", "prepare again")))
    assert statuses(forecast) == {name: MISS if name == "base.1" else DEPENDS for name in ALL}
    assert (forecast.count(HIT), forecast.count(MISS), forecast.count(DEPENDS)) == (0, 1, 5)
    whys = {outlook.node.id: outlook.why for outlook in forecast.outlooks}
    assert whys["base.1"].reason is Reason.COMMAND_CHANGED
    assert whys["left.1"].reason is Reason.INPUT_OPEN
    assert "base.1" in whys["left.1"].text


def test_the_schedule_runs_as_many_at_once_as_may(bench: Bench) -> None:
    bench.built(lower(TEXT), *ALL, seconds=2.0)
    forecast = bench.forecast(lower(TEXT.replace("prepare", "prepare again")))
    spans = {span.node: (span.start, span.end) for span in forecast.spans}
    assert spans["base.1"] == (0.0, 2.0)
    assert spans["left.1"] == spans["right.1"] == (2.0, 4.0)
    assert forecast.wall_seconds == pytest.approx(8.0)


def test_everything_built_is_a_hit_and_takes_no_time(bench: Bench) -> None:
    lowering = lower(TEXT)
    bench.built(lowering, *ALL)
    forecast = bench.forecast(lowering)
    assert set(statuses(forecast).values()) == {HIT}
    assert (forecast.critical_path, forecast.seconds) == ((), 0.0)
    assert set(forecast.results) == set(ALL)


def test_a_stage_that_only_known_copies_took_from_is_not_needed(bench: Bench) -> None:
    lowering = lower(TEXT)
    bench.built(lowering, "3.1", "3.2")
    forecast = bench.forecast(lowering)
    assert set(statuses(forecast).values()) == {HIT}
    assert {outlook.why.reason for outlook in forecast.outlooks if outlook.node.id.startswith("right.")} == {Reason.NOT_NEEDED}


def test_the_critical_path_is_the_chain_that_takes_longest(bench: Bench) -> None:
    lowering = lower(TEXT)
    for name, seconds in (("base.1", 1.0), ("left.1", 10.0), ("right.1", 4.0), ("right.2", 5.0), ("3.1", 0.5), ("3.2", 0.5)):
        bench.built(lowering, name, seconds=seconds)
    changed = lower(TEXT.replace("prepare", "prepare again"))
    forecast = bench.forecast(changed)
    assert forecast.critical_path == ("base.1", "left.1", "3.1", "3.2")
    assert forecast.seconds == pytest.approx(12.0, abs=1e-3)


TWINS = """FROM base AS a
RUN one
RUN two
FROM base AS b
RUN one
RUN two
RUN three
FROM scratch
COPY --from=a /x /a
COPY --from=b /x /b
"""


def test_of_equal_steps_one_runs_and_the_others_take_its_result(bench: Bench) -> None:
    lowering = lower(TWINS)
    for name, seconds in (("a.1", 2.0), ("a.2", 3.0), ("b.3", 4.0)):
        bench.built(lower(TWINS.replace("base", "other")), name, seconds=seconds)
    forecast = bench.forecast(lowering)
    outlooks = {outlook.node.id: outlook for outlook in forecast.outlooks}
    same = {name: each.same_as for name, each in outlooks.items() if each.same_as}
    assert same == {"a.1": "b.1", "a.2": "b.2"}, "b has the longer way to go, and begins first"
    assert [(outlooks[name].status, outlooks[name].seconds, outlooks[name].why.reason) for name in same] == [(HIT, 0.0, Reason.SAME_STEP)] * 2
    assert (forecast.count(HIT), forecast.same, forecast.count(MISS) + forecast.count(DEPENDS)) == (2, 2, 5)
    assert forecast.critical_path == ("b.1", "b.2", "b.3", "2.2")
    assert forecast.wall_seconds == pytest.approx(9.0)
    assert {span.node for span in forecast.spans} == {"b.1", "b.2", "b.3", "2.1", "2.2"}
    assert outlooks["a"].status == DEPENDS, "what it amounts to is not known yet"


def test_equal_steps_that_are_to_run_in_any_case_do(bench: Bench) -> None:
    forecast = bench.forecast(lower(TWINS), no_cache=True)
    assert set(statuses(forecast).values()) == {MISS}
    forecast = bench.forecast(lower(TWINS), no_cache_stages=("a",))
    likes = {outlook.node.id: (outlook.like, outlook.status) for outlook in forecast.outlooks if outlook.like}
    assert likes == {"b.1": ("a.1", DEPENDS), "b.2": ("a.2", DEPENDS)}, "these may take what a makes, but a's do run"
    assert forecast.same == 0


def test_steps_on_images_that_differ_are_not_the_same(bench: Bench) -> None:
    forecast = bench.forecast(lower("FROM base AS a\nRUN one\nFROM other AS b\nRUN one\nFROM scratch\nCOPY --from=a /x /a\nCOPY --from=b /x /b\n"))
    assert (forecast.same, set(statuses(forecast).values())) == (0, {MISS})
    assert [outlook.like for outlook in forecast.outlooks if outlook.like] == []


def test_known_steps_are_not_on_the_critical_path(bench: Bench) -> None:
    lowering = lower(TEXT)
    bench.built(lowering, *ALL, seconds=2.0)
    changed = lower(TEXT.replace("RUN more", "RUN other"))
    forecast = bench.forecast(changed)
    assert forecast.critical_path == ("right.2", "3.2")
    assert forecast.seconds == pytest.approx(4.0, abs=1e-3)
    assert statuses(forecast)["left.1"] == HIT
    why = next(outlook.why for outlook in forecast.outlooks if outlook.node.id == "right.2")
    assert why.reason is Reason.COMMAND_CHANGED


def test_steps_of_unknown_length_still_make_a_path(bench: Bench) -> None:
    forecast = bench.forecast(lower("FROM base\nRUN 1\nRUN 2\n"))
    assert forecast.critical_path == ("0.1", "0.2")
    assert [outlook.seconds for outlook in forecast.outlooks if outlook.node.is_step] == [None, None]


def test_no_cache_runs_what_is_known(bench: Bench) -> None:
    lowering = lower(TEXT)
    bench.built(lowering, *ALL)
    forecast = bench.forecast(lowering, no_cache=True)
    assert HIT not in statuses(forecast).values()
    forecast = bench.forecast(lowering, no_cache_stages=("right",))
    assert statuses(forecast) == {
        "base.1": HIT, "left.1": HIT, "right.1": MISS, "right.2": MISS, "3.1": HIT, "3.2": DEPENDS
    }  # fmt: skip


def test_what_lies_above_a_step_without_cache_waits_for_what_it_makes(bench: Bench) -> None:
    """I2: a known result is of what the step made last time."""
    lowering = lower(TEXT)
    bench.built(lowering, *ALL)
    forecast = bench.forecast(lowering, no_cache_stages=("base",))
    assert statuses(forecast) == {name: MISS if name == "base.1" else DEPENDS for name in ALL}


def test_a_result_whose_layer_is_gone_is_none(bench: Bench) -> None:
    lowering = lower("FROM base\nRUN 1\n")
    bench.built(lowering, "0.1")
    gone = Result(Layer("sha256:x", "c", Digest.of(b"never stored"), None), None, 1.0, 0.0, "me")
    key = encoding.key("content", ["0.1", ""])
    bench.store.commit(Batch(records=(("results", key, encoding.canonical(gone.to_json())),)))
    forecast = bench.forecast(lowering)
    assert statuses(forecast) == {"0.1": MISS}
    why = next(outlook.why for outlook in forecast.outlooks if outlook.node.id == "0.1")
    assert why.reason is Reason.GONE


def test_a_changed_base_is_told(bench: Bench) -> None:
    bench.built(lower("FROM base\nRUN 1\n"), "0.1")
    forecast = bench.forecast(lower("FROM other\nRUN 1\n"))
    why = next(outlook.why for outlook in forecast.outlooks if outlook.node.id == "0.1")
    assert why.reason is Reason.BASE_IMAGE_CHANGED


def test_a_forecast_writes_nothing(bench: Bench) -> None:
    before = {table: bench.store.scan(table) for table in ("recipes", "results", "places", "layers", "names")}  # type: ignore[arg-type]
    bench.forecast(lower(TEXT, World()))
    assert {table: bench.store.scan(table) for table in before} == before  # type: ignore[arg-type]


def test_layers_of_a_chain_lowest_first() -> None:
    lowering = lower("FROM base AS one\nRUN 1\nFROM one\nRUN 2\n")
    results = {"one.1": result("a"), "1.1": result("b")}
    layers = layers_of(lowering.graph, lowering.graph.target, results)
    assert [layer.content for layer in layers][1:] == ["content-a", "content-b"]
    assert layers[0] == lowering.graph["image:base"].definition.layers[0]  # type: ignore[union-attr]
    nothing = {"one.1": result("a")._replace(layer=None), "1.1": result("b")}
    assert len(layers_of(lowering.graph, lowering.graph.target, nothing)) == 2
