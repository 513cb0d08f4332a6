"""The page of `plan --format html` in a real browser: what is drawn, what a click shows, and that it fits every window."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import CHROMIUM, browse

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

EVIL = "</script><script>document.title='evil'</script>"
LONG = "averylongwordwithoutanybreakinit" * 8
DOCKERFILE = f"""FROM busybox AS low
COPY f /f
RUN cat /f > /g
FROM busybox AS side
RUN echo "{EVIL}" {LONG} > /s
FROM low
COPY --from=side /s /s
RUN cat /s /g > /out
"""
PROBE = """<script>
function probe(frame) {
  const page = frame.contentDocument, view = frame.contentWindow;
  const graph = page.querySelector("svg.graph"), panel = page.getElementById("panel");
  const nodes = [...graph.querySelectorAll(".node")];
  const inside = (small, large) => small.left >= large.left - 1 && small.right <= large.right + 1;
  const box = (each) => each.getBoundingClientRect();
  const found = {
    width: view.innerWidth,
    nodes: nodes.map((node) => node.querySelector(".id").textContent),
    flat: nodes.filter((node) => box(node.querySelector("rect")).width < 50 || box(node.querySelector("rect")).height < 20).length,
    outside: nodes.filter((node) => [...node.querySelectorAll("text")].some((text) => text.textContent && !inside(box(text), box(node.querySelector("rect"))))).length,
    edges: graph.querySelectorAll(".edge").length,
    before: panel.hidden,
  };
  const chosen = nodes.find((node) => node.classList.contains("miss"));
  chosen.dispatchEvent(new view.MouseEvent("mouseenter"));
  found.focused = graph.classList.contains("focused");
  found.near = graph.querySelectorAll(".node.near").length;
  chosen.dispatchEvent(new view.MouseEvent("mouseleave"));
  chosen.dispatchEvent(new view.MouseEvent("click", {bubbles: true, cancelable: true}));
  found.after = panel.hidden;
  found.panel = panel.textContent;
  found.wide = [...page.querySelectorAll("body *")].filter((each) => !each.closest(".canvas *, pre, #panel *")
    && box(each).right > view.innerWidth + 1).map((each) => each.outerHTML.slice(0, 80));
  found.scroll = [page.documentElement.scrollWidth, panel.scrollWidth - panel.clientWidth];
  page.dispatchEvent(new view.KeyboardEvent("keydown", {key: "Escape"}));
  found.closed = panel.hidden;
  return found;
}
const all = [];
document.addEventListener("load", (event) => {
  if (event.target.tagName !== "IFRAME") return;
  try { all.push(probe(event.target)); } catch (error) { all.push({failed: String(error)}); }
  document.title = JSON.stringify(all);
}, true);
</script>"""
"""Around copies of the page, which allows no script but its own; a window is never narrower than 500, a frame is."""
WIDTHS = (80, 700, 1280)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


def probed(directory: Path, page: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What was found in the page at each of WIDTHS, and the console."""
    around = directory / "around.html"
    frames = "".join(f'<iframe width="{width}" height="800" frameborder="0" srcdoc="{escape(page)}"></iframe>' for width in WIDTHS)
    around.write_text(f"<!doctype html><meta charset=utf-8><title></title>{PROBE}{frames}")
    printed, console = browse(directory, f"file://{around}", "--window-size=1400,900", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", printed, re.DOTALL)
    assert title is not None, printed[:2000]
    return json.loads(unescape(title[1])), console


def test_the_page_of_a_plan_in_a_browser(program: Program) -> None:
    context = program.project(DOCKERFILE, {"f": "f"})
    program.build(context).ok()
    (context / "f").write_text("changed")
    plan = program.plan(context)
    drawn = {node["id"] for node in plan["nodes"] if node["kind"] != "stage"}
    assert {node["status"] for node in plan["nodes"]} == {"hit", "miss", "depends"}
    file = program.root / "plan.html"
    program.call("plan", context, *program.base(), "--format", "html", "-o", file).ok()

    printed, console = browse(program.root, f"file://{file}", "--dump-dom")
    assert not console, "the policy of the page fits its own script and style"
    assert "<title>Plan of " in printed
    assert '<aside id="panel" hidden' in printed

    found, console = probed(program.root, file.read_text())
    assert not console
    assert [each.get("width") for each in found] == list(WIDTHS), found
    for each in found:
        assert {name.split(" ", 1)[1] for name in each["nodes"]} == drawn
        assert (each["flat"], each["outside"]) == (0, 0), "each box is there, and holds its words"
        assert each["edges"] >= len(drawn) - 1
        assert each["focused"]
        assert each["near"] > 1
        assert (each["before"], each["after"], each["closed"]) == (True, False, True)
        assert "COPY f /f" in each["panel"]
        assert "f changed (1 B → 7 B)" in each["panel"]
        assert not each["wide"], f"at {each['width']}"
        assert each["scroll"][0] <= each["width"]
        assert each["scroll"][1] <= 0, "nothing in the panel has to be scrolled sideways"
