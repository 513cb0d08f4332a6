"""The views of a plan: what a reader sees of a forecast, at any width, in any encoding, whatever the text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from compiler.forecast import HIT
from compiler.progress.rows import cells
from compiler.reasons import Explained, Reason
from compiler.records import Expected
from compiler.schedule import RunSpan
from compiler.views import plan_dot, plan_html, plan_json, plan_mermaid, plan_svg, plan_tree
from compiler.views.arrange import critical_edges
from compiler.views.layout import Item, lay_out
from compiler.views.profile import bars, profile
from tests.compiler.forecasts import NOW, forecast, hit, many, miss, two_stages, waits
from tests.compiler.graphs import scratch, stage, step

if TYPE_CHECKING:
    from compiler.forecast import Forecast

EVIL = (
    "</script><script>alert(1)</script>",
    'RUN echo "quoted" \\"twice\\" back\\',
    "RUN a &lt; b && c &amp; d; x --> y ==> z [a] {b} (c) |d| #35; `e`",
    "RUN style a:b #quot; classDef c:d;",
    "RUN \N{PARTY POPPER} 漢字 e\N{COMBINING ACUTE ACCENT}\u202e\x1b[31mred\x1b]0;title\x07\x00\udc80",
    "RUN one\ntwo\r\nthree\ttab",
    "RUN " + "x" * 65536,
    "]]> <!-- --> ]] end subgraph",
)


def tree(made: Forecast, target: str = "b", width: int = 80, **options: bool) -> str:
    return plan_tree.render(made, target, width=width, now=NOW, **options)


def page(made: Forecast, target: str = "b") -> str:
    return plan_html.page(made, target, "Plan", "linux/amd64", NOW)


def test_tree_says_status_time_spread_and_path() -> None:
    text = tree(two_stages())
    assert re.search(r"hit +a\.1 .*\(2 h ago by ann@laptop, took 3\.2 s\)", text)
    assert re.search(r"run +a\.2 .*~3\.2 s \(2\.9–4\.6 s\) \*", text)
    assert re.search(r"depends a\.3 .*~1\.0 s +\*", text), "one earlier run has no spread"
    assert re.search(r"depends b\.2 .* \? +\*", text), "never run"
    assert "because a.txt changed" in text
    assert "if what a.2 makes stays the same, then a hit" in text
    assert "because it waits for what a.3 makes; runs anyway, also if that stays the same" in " ".join(text.split())
    assert "not deterministic: 2 paths differed: /x, /y" in text
    assert "2 cached, 1 to run, 2 that depend on what those make" in text
    assert "about 4.2 s and one step that never ran before" in text
    assert "* critical path 4.2 s: a.2 → a.3 → b.2" in text
    assert re.search(r"running: 0 s █+ 4\.2 s, at most 1 at once", text)


def test_a_step_that_runs_for_a_reason_of_its_own_says_it() -> None:
    below = miss(step("s.1", "scratch"), "a.txt changed")
    other = miss(step("s.2", "s.1"), "the command changed: a → b", details=("- a", "+ b", "also: it moved", "  too"))
    again = miss(step("s.3", "s.2"), "the command changed: a → b")
    shown = tree(forecast(hit(scratch()), below, other, again, waits(stage("s", "s.3"), "s.3")), "s")
    assert "because a.txt changed" in shown
    assert shown.count("because the command changed: a → b") == 1, "not again for the same reason"
    more = miss(step("s.4", "s.3"), "the command changed: a → b", details=("- a", "+ b", "- c", "+ d", "x"))
    assert "+2 more" not in tree(forecast(hit(scratch()), other, more, waits(stage("s", "s.4"), "s.4")), "s"), "of nothing"
    assert shown.index("also: it moved") > shown.index("because the command")


def twins() -> Forecast:
    """`b.1` takes what `a.1` makes, and `b.2` may come out the same as `a.2`."""
    took = Expected(2.0, 2.0, 2.0, 1)
    same = Explained(Reason.SAME_STEP, "the same as a.1, whose result it takes")
    return forecast(
        hit(scratch()),
        miss(step("a.1", "scratch", stage="a"), expected=took),
        miss(step("a.2", "a.1", stage="a"), "it is new here"),
        waits(stage("a", "a.2"), "a.2"),
        hit(step("b.1", "scratch", stage="b"), result=None, where="", why=same, same_as="a.1", expected=took),
        waits(step("b.2", "b.1", stage="b"), "b.1", like="a.2"),
        waits(stage("b", "b.2"), "b.2"),
        path=("a.1", "b.2"),
        spans=(RunSpan("a.1", 0.0, 2.0), RunSpan("a.2", 2.0, 2.0), RunSpan("b.2", 2.0, 2.0)),
    )


def test_a_step_that_another_one_makes_is_told_apart_from_a_hit() -> None:
    shown = tree(twins())
    assert re.search(r"same +b\.1 +b\.1\n.* the same as a\.1, whose result it takes", shown)
    assert re.search(r"depends b\.2 .*\n.* may come out the same as a\.2\n", shown)
    assert "0 cached, 2 to run, 1 that depends on what those make, 1 the same as another" in shown
    document = json.loads(plan_json.render(twins(), "b", "linux/amd64"))
    node = {each["id"]: each for each in document["nodes"]}
    assert (node["b.1"]["status"], node["b.1"]["same_as"], node["b.1"]["expected_seconds"]) == ("hit", "a.1", 0.0)
    assert (node["b.1"]["where"], node["b.2"]["like"], node["a.1"]["same_as"]) == (None, "a.2", None)
    assert (document["summary"]["hits"], document["summary"]["same"]) == (1, 1)


def test_pictures_show_steps_that_are_the_same() -> None:
    assert "b.1 · same as a.1" in plan_dot.render(twins(), "b")
    assert "b.1 · same as a.1" in plan_mermaid.render(twins(), "b")
    assert "= b.1" in plan_svg.graph(twins(), "b")
    assert "the same as a.1, whose result it takes" in page(twins())
    edges = critical_edges(twins(), "b")
    assert ("b.1", "b.2") in edges, "the path leads on from the step that takes the result"


def test_a_result_that_is_elsewhere_says_where() -> None:
    made = forecast(hit(scratch()), hit(step("s.1", "scratch"), where="remote"), hit(stage("s", "s.1")))
    assert "2 h ago, remote by ann@laptop" in tree(made, "s")
    assert "2 h ago, remote by ann@laptop" in page(made, "s")
    assert [node["where"] for node in json.loads(plan_json.render(made, "s", ""))["nodes"]] == [None, "remote", None]
    assert "remote" not in tree(forecast(hit(scratch()), hit(step("s.1", "scratch")), hit(stage("s", "s.1"))), "s")


def test_times_stand_below_each_other() -> None:
    lines = [line for line in tree(two_stages()).splitlines() if line.endswith("*")]
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 3


@pytest.mark.parametrize("width", [20, 40, 60, 80, 160, 400])
@pytest.mark.parametrize("text", EVIL)
def test_no_line_is_wider_than_the_terminal(width: int, text: str) -> None:
    shown = tree(two_stages(text, details=(text, "b", "c", "d", "e")), width=width)
    assert max(cells(line) for line in shown.splitlines()) <= width
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)


def test_three_details_and_how_many_more() -> None:
    shown = tree(two_stages(details=tuple(f"~ file-{number}" for number in range(9))))
    assert "~ file-2" in shown
    assert "~ file-3" not in shown
    assert "+6 more" in shown


def test_one_detail_is_not_said_twice() -> None:
    made = two_stages()
    said = made.outlooks[2]._replace(why=made.outlooks[2].why._replace(text="a.txt changed (1 B → 2 B)", details=("~ a.txt (1 B → 2 B)",)))
    assert tree(made._replace(outlooks=(*made.outlooks[:2], said, *made.outlooks[3:]))).count("(1 B → 2 B)") == 1


def test_colours_change_nothing_else() -> None:
    coloured = tree(two_stages(), colour=True)
    assert "\x1b[33mrun" in coloured
    assert "\x1b[36mdepends" in coloured
    assert re.sub(r"\x1b\[[0-9]*m", "", coloured) == tree(two_stages())


def test_without_unicode_all_is_ascii_and_bars_are_numbers() -> None:
    shown = tree(two_stages(), unicode=False)
    assert shown.isascii()
    assert re.search(r"running: 0 s 1+ 4\.2 s", shown)
    assert "a.2 -> a.3 -> b.2" in shown


def test_the_assumption_stands_first() -> None:
    made = two_stages()._replace(changed=("a", "b", "c", "d", "e"))
    assert tree(made).splitlines()[0] == "if these files changed: a, b, c, +2 more"


def test_nothing_to_do() -> None:
    made = forecast(hit(scratch()), hit(step("s.1", "scratch")), hit(stage("s", "s.1")))
    shown = tree(made, "s")
    assert "nothing to do: 1 step is cached" in shown
    assert "critical" not in shown
    assert "running" not in shown


def test_profile_counts_what_runs_at_once() -> None:
    spans = (RunSpan("a", 0.0, 2.0), RunSpan("b", 0.0, 4.0), RunSpan("c", 2.0, 4.0), RunSpan("d", 3.0, 3.0), RunSpan("e", 4.0, 8.0))
    periods = profile(spans)
    assert [tuple(period) for period in periods] == [(0.0, 4.0, 2), (4.0, 8.0, 1)]
    assert bars(periods, 4) == "██▄▄"
    assert bars(periods, 4, unicode=False) == "2211"
    assert bars((), 4) == ""


def test_the_critical_path_leads_through_stages_and_nowhere_else() -> None:
    edges = critical_edges(two_stages(), "b")
    assert edges == {("a.2", "a.3"), ("a.3", "a"), ("a", "b.2"), ("b.2", "b")}


DOT_STRING = r'"(?:[^"\\\n]|\\[\\"n])*"'


@pytest.mark.parametrize("text", EVIL)
def test_dot_takes_any_text(text: str) -> None:
    shown = plan_dot.render(two_stages(text), "b")
    word = rf"(?:{DOT_STRING}|[\w.]+)"
    attributes = rf"\[[a-z]+={word}(?: [a-z]+={word})*\]"
    allowed = rf"{DOT_STRING}(?: -> {DOT_STRING})?(?: {attributes})?;|subgraph cluster_\d+ {{|}}|label={word}; style=rounded; color=gray;"
    body = [line.strip() for line in shown.splitlines()][2:-1]
    assert [line for line in body if not re.fullmatch(allowed, line)] == []
    assert not re.search(r"&(?!amp;)", shown), "Graphviz reads entities"
    assert len(shown) < 20_000
    assert '"a" -> "b.2" [penwidth=2.5];' in shown


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_shows_the_text_as_it_is() -> None:
    text = 'RUN a &lt; b "c" \\N \\" d && e'
    done = subprocess.run(
        ["dot", "-Tsvg"], input=plan_dot.render(two_stages(text), "b").encode(), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    drawn = ElementTree.fromstring(done.stdout)
    # Graphviz sets no-break spaces.
    words = ["".join(element.itertext()).replace("\N{NO-BREAK SPACE}", " ") for element in drawn.iter() if element.tag.endswith("}text")]
    assert text in words


@pytest.mark.parametrize("text", EVIL)
def test_mermaid_takes_any_text(text: str) -> None:
    lines = plan_mermaid.render(two_stages(text), "b").splitlines()
    label = r'"(?:[\w .,/\-=+·…@]|#\d+;|<br/>)*"'
    statement = rf"n\d+\[{label}\]:::\w+|n\d+ [-=]{{2}}> n\d+|subgraph s\d+\[{label}\]|end|class n\d+(?:,n\d+)* \w+|classDef .*"
    assert [line for line in lines[1:] if not re.fullmatch(statement, line.strip())] == []
    assert sum("==>" in line for line in lines) == 4
    assert not [line for line in lines if re.search(r"style.*:\S*#.*;", line)], "Mermaid would take a semicolon away"


class Tags(HTMLParser):
    """Counts tags and collects what is shown as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.shown: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


@pytest.mark.parametrize("text", EVIL)
def test_the_page_takes_any_text(text: str) -> None:
    made = page(two_stages(text, details=(text,)))
    plain = Tags(page(two_stages("RUN make", details=("x",))))
    # No text makes an element: the page has those of a harmless one.
    assert Tags(made).seen == plain.seen
    assert len(made.encode()) < 120_000
    picture = plan_svg.graph(two_stages(text), "b")
    assert len(list(ElementTree.fromstring(picture).iter("a"))) == 6
    assert cells(max((element.text or "" for element in ElementTree.fromstring(picture).iter("text")), key=cells)) <= 40


def test_what_was_cut_is_said() -> None:
    shown = "".join(Tags(page(two_stages("RUN " + "x" * 65536))).shown)
    assert "characters more)" in shown


@pytest.mark.alone
@pytest.mark.parametrize("count", [3, 30, 300])
def test_pages_of_any_size_are_made_fast(count: int) -> None:
    made = many(count)
    began = time.process_time()
    shown = page(made, "s0")
    assert time.process_time() - began < 1.0
    assert shown.count('<details id="n') == len(made.outlooks)


def test_one_node_is_a_picture() -> None:
    picture = ElementTree.fromstring(plan_svg.graph(forecast(hit(scratch()), hit(stage("s", "scratch"))), "s"))
    assert len(list(picture.iter("a"))) == 2


def test_lines_of_different_nodes_do_not_lie_on_each_other() -> None:
    """Two long edges through one gutter: who follows one must not end at the other's node."""
    items = [Item("a", "g", ()), Item("b", "h", ()), Item("c", "h", ("b",)), Item("d", "h", ("c",))]
    items += [Item("e", "h", ("d", "a")), Item("f", "g", ("a", "c", "e")), Item("i", "h", ("e", "a"))]
    ways: dict[str, set[tuple[float, float, float]]] = {}
    for edge in lay_out(items, frozenset()).edges:
        if len(edge.points) > 4:
            ways.setdefault(edge.source, set()).add((edge.points[2][0], edge.points[2][1], edge.points[3][1]))
    assert len(ways) >= 2, "the graph has long edges of different nodes"
    named = [(name, way) for name, all_of_it in ways.items() for way in all_of_it]
    for name, (x, top, bottom) in named:
        for other, (x2, top2, bottom2) in named:
            assert name == other or x != x2 or bottom <= top2 or bottom2 <= top


def test_a_miss_without_a_known_time_has_no_time_column() -> None:
    made = forecast(hit(scratch()), miss(step("s.1", "scratch")), miss(stage("s", "s.1")), path=("s.1",))
    assert "?" not in tree(made, "s")
    assert made.count(HIT) == 0
