"""Timelines: of a build out of its record, and of what a fleet does now; nothing in them can break out of a picture."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from records import EVIL, build, node
from surfing import get, publish

from cache import encoding
from cache.build_record import BuildRecord
from compiler.pages.build_timeline import MOST_BARS, build_timeline
from compiler.pages.fleet_picture import aged, fleet_picture
from compiler.pages.templates import render, safe

if TYPE_CHECKING:
    from conftest import Serve

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def rows(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text") if text.get("class") == "row"]


def drawn(root: ElementTree.Element) -> dict[str, tuple[float, float, float, str]]:
    """Text → x and width in per cent, y, class."""
    found = {}
    for group in root.iter():
        if (group.get("class") or "").startswith("node "):
            (inner,) = group.iter(f"{SVG}svg")
            text = "".join(next(inner.iter(f"{SVG}text")).itertext())
            place = tuple(float((inner.get(name) or "").rstrip("%")) for name in ("x", "width", "y"))
            found[text] = (*place, group.get("class") or "")
    return found  # type: ignore[return-value]


def fleet_record(**fields: Any) -> BuildRecord:
    """a and b at the same time on one worker, then c on the machine that builds."""
    return build(
        node("a.1", "image:base", seconds=2.5, started=0.0, waited=0.5, worker="w1"),
        node("b.1", "image:base", seconds=1.0, started=1.0, worker="w1"),
        node("known", "a.1", "b.1", status="cached"),
        node("c.1", "known", seconds=1.0, started=2.5, status="failed"),
        node("d.1", "c.1", status="cancelled"),
        seconds=4.0, **fields,
    )  # fmt: skip


def test_a_build_is_drawn_by_machines_with_its_critical_path() -> None:
    found = build_timeline(fleet_record())
    assert found is not None
    assert found.critical == ("a.1", "c.1")
    assert found.seconds == 3.0
    root = parsed(found.picture)
    assert rows(root) == ["here: ann@laptop", "w1"]
    bars = drawn(root)
    assert bars["◆ a.1 RUN make a.1"][:2] == (12.5, 50.0)
    assert bars["b.1 RUN make b.1"][:2] == (25.0, 25.0)
    assert bars["◆ a.1 RUN make a.1"][2] != bars["b.1 RUN make b.1"][2], "in lanes of their own"
    assert bars["◆ c.1 RUN make c.1"] == (62.5, 25.0, bars["◆ c.1 RUN make c.1"][2], "node failed critical")
    assert len(bars) == 3
    assert sum(each.get("class") == "critical-link" for each in root.iter(f"{SVG}line")) == 1
    assert [each.get("href") for each in root.iter(f"{SVG}a")] == ["#n3", "#n0", "#n1"]


def test_records_of_earlier_versions_have_none_and_new_ones_survive_being_written() -> None:
    record = fleet_record()
    assert build_timeline(build()) is None
    _, key, value = record.encode()
    again = BuildRecord.parse(key, value)
    assert again is not None
    assert again.nodes == record.nodes
    assert build_timeline(again) == build_timeline(record)
    _, *fields, nodes, beside = encoding.parse(zlib.decompress(value))
    second = zlib.compress(encoding.canonical([2, *fields, [row[:11] for row in nodes], beside]))
    earlier = BuildRecord.parse(key, second)
    assert earlier is not None
    assert [each.inputs for each in earlier.nodes] == [each.inputs for each in record.nodes]
    assert build_timeline(earlier) is None


def test_evil_records_stay_inside() -> None:
    wild = [
        node(f"{EVIL}{number}", f"{EVIL}{number - 1}", f"{EVIL}{number + 1}", title=EVIL, worker=f"{EVIL}{number % 3}", started=started, waited=waited, seconds=seconds)
        for number, (started, waited, seconds) in enumerate([(-1e10, 5.0, 1.0), (1e10, -3.0, 1e10), (0.0, 0.0, -5.0), (2.0, 1e10, 0.0), (1.0, 0.0, 1.0)])
    ]  # fmt: skip
    found = build_timeline(build(*wild, made_by=EVIL))
    assert found is not None
    assert "<script" not in found.picture
    assert "\x1b" not in found.picture
    root = parsed(found.picture)
    for x, width, _, _ in drawn(root).values():
        assert 0 <= x <= 100
        assert 0 < width <= 100
        assert x + width <= 100.001


@pytest.mark.alone
def test_of_many_steps_the_longest_are_drawn_and_it_takes_no_time() -> None:
    steps = [node(f"s.{number}", f"s.{number - 1}", seconds=1.0 + number % 7, started=float(number), worker=f"w{number % 900}") for number in range(2_000)]
    began = time.process_time()
    found = build_timeline(build(*steps))
    assert time.process_time() - began < 10
    assert found is not None
    assert found.shorter == 2_000 - MOST_BARS
    assert len(found.picture) < 400_000
    assert rows(parsed(found.picture))[-1].startswith("… and ")


def state(*running: dict[str, Any]) -> dict[str, Any]:
    plain = {"key": "ab" * 32, "text": "RUN make", "worker": "w1", "seconds": 2.0, "expected": 0.0, "reason": "free", "builds": []}
    return {"at": 1000.0, "running": [{**plain, **each} for each in running]}


def test_what_runs_is_drawn_up_to_when_it_is_expected_to_end() -> None:
    now = aged(state({"text": "RUN a", "expected": 8.0}, {"text": "RUN b", "seconds": 1.0}, {"text": "RUN c", "worker": "w2", "seconds": 4.0, "expected": 3.0}), 1001.0)
    root = parsed(fleet_picture(now))
    assert rows(root) == ["w1", "w2"]
    bars = drawn(root)
    assert bars["RUN a"][:2] == (20.0, 80.0), "began 3 s ago, ends in 5; the picture goes from 5 s ago to then"
    assert bars["RUN b"][:2] == (30.0, 20.0)
    assert (bars["RUN c"][:2], bars["RUN c"][3]) == ((0.0, 50.0), "node late")
    (line,) = [each for each in root.iter(f"{SVG}line") if each.get("class") == "now"]
    assert line.get("x1") == "50%"
    assert fleet_picture(aged(state(), 1.0)) == ""
    assert "<script" not in fleet_picture(aged(state({"text": EVIL, "reason": EVIL, "worker": EVIL, "expected": 1e300}), 1.0))


def test_evil_workers_and_actions_stay_texts_of_the_page() -> None:
    action = {"key": EVIL, "text": EVIL, "worker": EVIL, "seconds": 1.0, "expected": 2.0, "reason": EVIL, "builds": [EVIL]}
    worker = {
        "name": EVIL, "state": EVIL, "version": EVIL, "slots": 2, "busy": 1, "memory": 1, "platforms": [EVIL], "labels": {EVIL: EVIL},
        "done": 1, "failed": 0, "since": 1.0, "layer_bytes": 0, "warm": 0.5, "key": EVIL,
    }  # fmt: skip
    going = {"build": EVIL, "person": EVIL, "project": EVIL, "running": 1, "queued": 1, "done": 0, "since": 1.0}
    fleet = aged({"at": 1.0, "workers": [worker], "running": [action], "queued": [action], "queue_length": 300, "lookups": 150, "hits": 120, "builds": [going]}, 2.0)
    html = render(
        "first.html", now=2.0, fleet=fleet, fleet_picture=safe(fleet_picture(fleet)), shown=100, hours="", days="", hour_chart="", day_chart="",
        builds=[], looked_at=0, slow=[], projects=[], namespaces=[], several=False, percent=None,
    ).decode()  # fmt: skip
    assert "<script" not in html
    assert "<img" not in html
    assert "\x1b" not in html
    assert html.count("&lt;script&gt;alert(1)") > 10, "it is shown as what it is"
    assert "300 actions wait; 120 of 150 cache look-ups hit" in html
    assert "… and 299 more, also of namespaces that you may not read." in html


def test_a_page_shows_the_timeline_and_where_steps_ran(serve: Serve) -> None:
    server = serve("--anonymous", "write")
    html = get(server, publish(server, fleet_record()))[2]
    assert 'class="rows-picture"' in html
    assert "Critical path: a.1 → c.1: 3.0 s of 4.0 s." in html
    assert "on w1</small>" in html
    assert 'class="rows-picture"' not in get(server, publish(server, build()))[2]
