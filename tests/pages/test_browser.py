"""The pages in a real browser: nothing is wider than the window, light and dark are what the reader wants, no scripts."""

from __future__ import annotations

import re
import zlib
from html import escape
from typing import TYPE_CHECKING

import pytest
from records import EVIL, build, node
from surfing import get, publish

from tests.browser import CHROMIUM, browse

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve

PROBE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(each => !each.closest(".canvas *, pre")
  && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80));
parent.document.title = `${innerWidth} ${document.documentElement.scrollWidth} [${wide.join("|")}] [${
  document.querySelectorAll("svg rect").length}]`;
</script></body>"""
"""Run in copies of the pages alone: they themselves allow no script."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


def corner(png: Path) -> tuple[int, int, int]:
    """The colour of the first pixel: no filter of PNG changes that one."""
    data = png.read_bytes()
    chunks, at = b"", 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            chunks += data[at + 8 : at + 8 + size]
        at += size + 12
    red, green, blue = zlib.decompress(chunks)[1:4]
    return red, green, blue


@pytest.fixture
def pages(serve: Serve) -> tuple[str, dict[str, str]]:
    """Address of a server, and pages with long and evil texts by their paths."""
    server = serve("--anonymous", "write")
    long = "RUN " + "averylongwordwithoutanybreakinit" * 8
    steps = [node(f"stage.{number}", f"stage.{number - 1}" if number else "image:base", title=long, note=long, started=float(number), worker=f"worker-{number % 2}") for number in range(5)]
    steps += [node(f"other{number}.1", "image:base", "stage.4", title=EVIL, status="failed", reason="x") for number in range(6)]
    path = publish(server, build(*steps, project="x" * 200, made_by="someone.with.a.long.name@a-machine-with-a-long-name.example", target="y" * 100))
    publish(server, build(ok=False), "pr/a-long-name-of-a-namespace/7")
    return server.web, {place: get(server, place)[2] for place in ("/", path, "/page.css")}


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(pages: tuple[str, dict[str, str]], tmp_path: Path, width: int) -> None:
    _, texts = pages
    css = texts["/page.css"]
    for number, (path, html) in enumerate(texts.items()):
        if path == "/page.css":
            continue
        copy = tmp_path / f"{number}.html"
        page = html.replace('<link rel="stylesheet" href="/page.css">', f"<style>{css}</style>").replace("</body>", PROBE)
        # A window is never narrower than 500, a frame is.
        copy.write_text(f'<title></title><iframe width="{width}" height="800" frameborder="0" srcdoc="{escape(page)}"></iframe>')
        printed, _ = browse(tmp_path, f"file://{copy}", "--window-size=1400,900", "--dump-dom")
        found = re.search(r"<title>(\d+) (\d+) \[(.*)\] \[(\d+)\]</title>", printed, re.DOTALL)
        assert found is not None, printed[:2000]
        assert int(found[1]) == width
        assert int(found[2]) <= width
        assert not found[3]
        if path != "/":
            assert int(found[4]) > 10, "the picture is there"
            assert html.count('class="rows-picture"') == 1


@pytest.mark.parametrize("path", ["first", "build"])
def test_light_and_dark_without_a_complaint(pages: tuple[str, dict[str, str]], tmp_path: Path, path: str) -> None:
    address, texts = pages
    place = "/" if path == "first" else next(each for each in texts if each.startswith("/builds/"))
    colours = []
    for scheme in (0, 1):
        picture = tmp_path / f"{scheme}.png"
        _, console = browse(
            tmp_path, address + place, f"--screenshot={picture}", "--window-size=800,600", f"--blink-settings=preferredColorScheme={scheme}"
        )
        assert "Refused" not in "\n".join(console), "the policy fits the pages"
        assert "Content Security Policy" not in "\n".join(console)
        colours.append(corner(picture))
    dark, light = colours
    assert max(dark) < 64, "the stylesheet came, and follows the reader's choice"
    assert min(light) > 224
