"""The picture of a build: all of it is drawn, and nothing in a record can break out of it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from records import EVIL, build, node

from cache.build_record import BesideRecord, BuildRecord
from compiler.pages.build_picture import MOST_NODES, picture

SVG = "{http://www.w3.org/2000/svg}"


def parsed(record: BuildRecord) -> ElementTree.Element:
    return ElementTree.fromstring(picture(record).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def edges(root: ElementTree.Element) -> int:
    return sum(1 for path in root.iter(f"{SVG}path") if path.get("class") == "edge")


def test_steps_sources_and_steps_that_did_not_run_are_drawn() -> None:
    nodes = (
        node("app.1", "image:base", status="cached"), node("app.2", "app.1", "lib.2"), node("app.3", "app.2", status="failed"),
    )  # fmt: skip
    beside = (
        BesideRecord("image:base", "image", "base:1"), BesideRecord("lib.2", "copy", "COPY lib /", ("image:base", "context")),
        BesideRecord("context", "context", ""), BesideRecord("app.4", "run", "RUN last", ("app.3",)),
        BesideRecord("image:unused", "image", "unused"),
    )  # fmt: skip
    root = parsed(build(*nodes, beside=beside))
    shown = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    assert {"✓ app.1", "▶ app.2", "✗ app.3", "· app.4", "· lib.2", "image:base", "context", "stage app ← target", "stage lib"} <= shown
    assert "image:unused" not in shown
    assert edges(root) == 7
    assert [link.get("href") for link in root.iter(f"{SVG}a")] == ["#n0", "#n1", "#n2"]


def test_records_of_circles_strangers_and_twins_are_drawn_without_them() -> None:
    nodes = (node("a.1", "a.2", "a.1", "nobody"), node("a.2", "a.1"), node("a.1", "a.2"))
    assert edges(parsed(build(*nodes))) == 1


def test_evil_texts_stay_texts() -> None:
    evil = node(f"{EVIL}.1", "image:base", title=EVIL)
    svg = picture(build(evil, target=EVIL, beside=(BesideRecord("image:base", EVIL, EVIL),)))
    assert "<script" not in svg
    assert "<img" not in svg
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    assert len(list(parsed(build(evil)).iter(f"{SVG}a"))) == 1


@pytest.mark.parametrize("count", [0, MOST_NODES + 1])
def test_nothing_is_drawn_that_says_nothing(count: int) -> None:
    nodes = [node(f"a.{number}", "image:base") for number in range(count)] or [node("a.1")]
    assert picture(build(*nodes)) == ""
