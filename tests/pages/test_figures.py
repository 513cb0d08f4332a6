"""Figures of the first page: which builds count, and what is added up."""

from __future__ import annotations

import time
import zlib

import pytest
from records import build, node, row

from cache import encoding
from cache.build_record import BuildRecord
from compiler.pages import charts, figures

NOW = 1_795_000_000.0


def test_records_of_the_first_version_are_read() -> None:
    value = [1, "p", "f", "t", "linux/amd64", 5.0, 1.0, True, "ann@laptop", "", [["a.1", "RUN x", "ran", "", "r", "", "", "", 1.0, None]]]
    found = BuildRecord.parse("k", zlib.compress(encoding.canonical(value)))
    assert found is not None
    assert (found.nodes[0].id, found.nodes[0].inputs, found.beside) == ("a.1", (), ())
    again = build(node("a.1", "image:base"), started=5.0)
    assert BuildRecord.parse(again.key, again.encode()[2]) == again


@pytest.mark.parametrize("started", [float("nan"), float("inf"), 10**400, 1e12, "1"])
def test_a_time_that_is_none_makes_no_record(started: object) -> None:
    value = [2, "p", "f", "t", "linux/amd64", 5.0, 1.0, True, "ann@laptop", "", [], []]
    value[5] = started
    import json

    assert BuildRecord.parse("k", zlib.compress(json.dumps(value).encode())) is None


def test_builds_that_make_no_sense_are_left_out() -> None:
    good = [row(build(started=NOW - number)) for number in range(3)]
    ahead = row(build(started=NOW + 2 * figures.FUTURE_SECONDS))
    bomb = ("main", good[0][1], zlib.compress(b" " * (64 << 20)))
    rows = [ahead, ("main", "zzzz", good[0][2]), bomb, ("main", good[0][1], b"junk"), *good]
    assert [each.key for each in figures.newest_builds(iter(rows), NOW)] == [key for _, key, _ in good]


def test_only_so_many_are_read() -> None:
    taken = 0

    def rows() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield "main", "no key", b""

    assert figures.newest_builds(rows(), NOW) == []  # type: ignore[arg-type]
    assert taken <= figures.MOST_RECORDS + 1


def test_slowest_steps_are_named_once_with_their_longest_run() -> None:
    builds = figures.newest_builds(
        iter([
            row(build(node("a.1", seconds=2.0), node("a.2", seconds=9.0, status="cached"))),
            row(build(node("a.1", seconds=7.0), node("a.3", seconds=3.0))),
        ]),
        time.time() + 10,
    )  # fmt: skip
    assert [(step.id, step.seconds, step.runs) for step in figures.slowest_steps(builds)] == [("a.1", 7.0, 2), ("a.3", 3.0, 1)]


def test_a_project_counts_each_blob_once() -> None:
    first = build(node("a.1", content="1" * 64), node("a.2", content="2" * 64, status="cached"))
    rows = [row(first), row(build(node("a.1", content="1" * 64))), row(build(project="other"), "pr/1")]
    builds = figures.newest_builds(iter(rows), time.time() + 10)
    blobs = {"1" * 64: {"x": 100, "y": 5}, "2" * 64: {"y": 5, "z": 1}}
    shop, other = figures.projects(builds, lambda namespace, _: blobs if namespace == "main" else {})
    assert (shop.name, shop.builds, shop.bytes, shop.rate) == ("shop", 2, 106, 34)
    assert (other.name, other.namespace, other.bytes) == ("other", "pr/1", 0)


def test_only_all_is_all_and_only_nothing_is_nothing() -> None:
    assert figures.percent(999, 1000) == 99
    assert figures.percent(1, 1000) == 1
    assert figures.percent(0, 9) == 0
    assert figures.percent(9, 9) == 100
    assert figures.percent(0, 0) is None


def test_hours_and_days_end_now_and_add_up() -> None:
    hour = int(NOW // 3600)
    counts = {hour: (3, 1), hour - 1: (1, 1), hour - 47: (5, 5), hour - 48: (100, 0), hour - 24 * 31: (1000, 0)}
    hours, days = charts.by_hour(counts, NOW), charts.by_day(counts, NOW)
    assert (len(hours), hours[-1].hits, hours[-2].hits, hours[0].hits) == (charts.HOURS, 3, 1, 5)
    assert charts.summary(hours) == "56 % of 16 lookups"
    assert sum(day.hits for day in days) == 109
    assert "no lookups yet" in charts.chart(charts.by_hour({}, NOW), "x")
    assert charts.chart(hours, "x").count("<g ") == 3
