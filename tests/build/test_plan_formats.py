"""The formats of `plan`, as their readers take them."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

TEXT = """FROM busybox AS build
WORKDIR /w
COPY a.txt .
RUN cat a.txt > out && echo "</script><b>" '\\"quoted\\"' | cat
FROM busybox
COPY --from=build /w/out /out
RUN echo \N{PARTY POPPER} done
"""


@pytest.fixture
def built(program: Program) -> Path:
    """Built once, then with a file changed."""
    context = program.project(TEXT, {"a.txt": "a"})
    program.build(context).ok()
    (context / "a.txt").write_text("longer than before")
    return context


def shown(program: Program, context: Path, *arguments: str) -> str:
    return program.call("plan", context, *program.base(), *arguments).ok().stdout


def test_tree_says_what_will_happen_and_why(program: Program, built: Path) -> None:
    text = shown(program, built)
    assert re.search(r"run +build\.2 +COPY a\.txt", text)
    assert "because a.txt changed (1 B → 18 B)" in text
    assert re.search(r"depends +1\.1 ", text)
    assert "critical path" in text
    assert max(map(len, text.splitlines())) <= 80


def test_json_has_what_the_documentation_lists(program: Program, built: Path) -> None:
    document = json.loads(shown(program, built, "--format", "json"))
    nodes = {node["id"]: node for node in document["nodes"]}
    hit, miss, depends = nodes["build.1"], nodes["build.2"], nodes["build.3"]
    assert (hit["status"], hit["where"], hit["took_seconds"] >= 0, bool(hit["made_by"])) == ("hit", "local", True, True)
    assert (miss["status"], miss["reason"], miss["details"]) == ("miss", "files-changed", ["~ a.txt (1 B → 18 B)"])
    assert miss["expected_runs"] == 1
    assert miss["expected_low"] <= miss["expected_seconds"] <= miss["expected_high"]
    assert (depends["status"], depends["if_same"]) == ("depends", "hit")
    summary = document["summary"]
    assert summary["spans"][0]["id"] == "build.2"
    assert summary["wall_seconds"] >= summary["expected_seconds"] - 0.002  # both are rounded
    assert all(running >= 1 for _, _, running in summary["profile"])
    documented = (program_docs() / "plan-json.md").read_text()
    missing = [name for name in (*miss, *summary) if f"`{name}`" not in documented and f".{name}`" not in documented]
    assert missing == []


def program_docs() -> Path:
    from pathlib import Path

    return Path(__file__).parents[2] / "docs"


def test_exit_code(program: Program, built: Path) -> None:
    assert program.call("plan", built, *program.base()).code == 0
    assert program.call("plan", built, *program.base(), "--exit-code").code == 10
    program.build(built).ok()
    assert program.call("plan", built, *program.base(), "--exit-code").code == 0


STRING = r'"(?:[^"\\]|\\.)*"'


def test_dot_is_well_formed(program: Program, built: Path) -> None:
    lines = shown(program, built, "--format", "dot").splitlines()
    assert (lines[0], lines[-1]) == ("digraph buildgraph {", "}")
    attribute = rf"[a-z]+=(?:{STRING}|[\w.]+)"
    statement = rf"{STRING}(?: -> {STRING})?(?: \[{attribute}(?: {attribute})*\])?;"
    others = rf"subgraph cluster_\d+ {{|}}|(?:{attribute}; ?)+|rankdir=TB; node \[.*\];"
    wrong = [line for line in lines[1:-1] if not re.fullmatch(rf"{statement}|{others}", line.strip())]
    assert wrong == []
    assert any('"build.2" -> "build.3" [penwidth=2.5];' in line for line in lines)


def test_mermaid_labels_hold_no_markup(program: Program, built: Path) -> None:
    text = shown(program, built, "--format", "mermaid")
    assert text.startswith("flowchart TB\n")
    labels = re.findall(r'\["(.*)"\]', text)
    assert labels
    assert not [label for label in labels if set(label.replace("<br/>", "")) & set("<>\"&`$()")]
    assert text.count("subgraph") == text.count("  end\n") == 2


class Page(HTMLParser):
    """What stands on a page: its tags with their attributes, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag if tag in ("script", "style") else self._in

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.raw[self._in] = self.raw.get(self._in, "") + data


def test_the_page_stands_alone_and_runs_nothing_of_the_dockerfile(program: Program, built: Path) -> None:
    target = built / "plan.html"
    program.call("plan", built, *program.base(), "--format", "html", "-o", target).ok()
    text = target.read_text()
    page = Page()
    page.feed(text)
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == names.count("style") == 1
    assert not {"link", "img", "iframe", "b"} & set(names)
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") or name == "src" for name in attrs)]
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "content" in attrs and "http-equiv" in attrs)
    import base64

    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert f"sha256-{digest}" in (policy or ""), f"the policy would block the page's own {kind}"
    assert "&lt;/script&gt;&lt;b&gt;" in text
    # Each node of the picture leads to its details.
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert links
    assert links <= {f"#{attrs['id']}" for tag, attrs in page.tags if tag == "details"}


def test_the_picture_is_valid_xml(program: Program, built: Path) -> None:
    text = shown(program, built, "--format", "html")
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 2
    graph = ElementTree.fromstring(pictures[0])  # made by us a moment ago
    classes = [element.get("class", "") for element in graph.iter() if element.tag == "a"]
    assert any("miss" in each and "critical" in each for each in classes)
    assert sum(element.get("class") == "stage" for element in graph.iter()) == 2


def test_output_is_whole_or_not_there(program: Program, built: Path) -> None:
    ran = program.call("plan", built, *program.base(), "--format", "html", "-o", "/proc/none/plan.html")
    ran.failed(4)
    assert ran.stdout == ""


def test_changed_outside_of_the_context_is_refused(program: Program, built: Path) -> None:
    program.call("plan", built, *program.base(), "--changed", "/etc/passwd").failed(2)


def test_every_platform_has_its_plan(program: Program) -> None:
    # Copies alone, since only they can be built for another platform wherever the tests run.
    context = program.project("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /f\n", {"amd64": "", "arm64": ""})
    program.build(context, "--platform", "linux/amd64").ok()
    several = ("--platform", "linux/amd64,linux/arm64")
    text = shown(program, context, *several)
    first, second = text.split("platform linux/arm64\n")
    assert first.startswith("platform linux/amd64\n")
    assert "hit" in first
    assert re.search(r"run +0\.2 ", second)
    document = json.loads(shown(program, context, *several, "--format", "json"))
    assert document["version"] == 1
    assert [plan["platform"] for plan in document["plans"]] == ["linux/amd64", "linux/arm64"]
    assert [plan["summary"]["misses"] for plan in document["plans"]] == [0, 1]
    call = ("plan", context, *program.base(), *several)
    assert program.call(*call, "--exit-code").code == 10
    assert "one platform" in program.call(*call, "--format", "dot").failed(2).stderr


def test_a_plan_makes_no_directories(program: Program, built: Path) -> None:
    place = program.root / "no" / "such" / "plan.html"
    call = ("plan", built, *program.base(), "--format", "html", "-o")
    assert f"there is no directory {place.parent}" in program.call(*call, place).failed(4).stderr
    assert not (program.root / "no").exists()
    program.call(*call, program.root / "plan.html").ok()
    assert (program.root / "plan.html").read_text().startswith("<!")
