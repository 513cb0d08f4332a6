"""`plan --changed`: what would run if files changed, without anyone touching them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program, Ran

TEXT = "FROM busybox\nCOPY lib /lib2\nRUN cat /lib2/a\nCOPY src /src\nCOPY docs/*.md /docs/\nRUN cat /src/main.c\n"
FILES = {"lib/a": "a", "src/main.c": "main", "src/deep/er/x.c": "x", "docs/a.md": "doc", ".dockerignore": "**/*.log\n"}
RUNS = {"0.1": "hit", "0.2": "hit", "0.3": "hit", "0.4": "hit", "0.5": "hit"}

# What is copied onto it is a hit unless the new files stand in its way; only a build knows.
SRC = {**RUNS, "0.3": "miss", "0.4": "depends", "0.5": "depends"}


def changed(program: Program, *paths: str) -> dict[str, str]:
    arguments = [word for path in paths for word in ("--changed", path)]
    statuses = program.statuses(program.root / "project", *arguments)
    return {name: status for name, status in statuses.items() if not name.endswith(".0")}


def test_only_what_takes_the_file_would_run(program: Program) -> None:
    context = program.project(TEXT, FILES)
    program.build(context).ok()
    assert changed(program) == RUNS
    assert changed(program, "src/main.c") == SRC
    assert changed(program, "src/deep") == SRC
    assert changed(program, "src/new/file.c") == SRC, "one that is not there yet"
    assert changed(program, "docs/b.md")["0.4"] == "miss"
    assert changed(program, "docs/b.txt") == RUNS, "no pattern takes it"
    assert changed(program, "src/x.log") == RUNS, "it is ignored"
    assert changed(program, "other") == RUNS
    assert changed(program, "lib/a")["0.1"] == "miss"


def test_nothing_is_touched_and_nothing_wrong_is_remembered(program: Program) -> None:
    context = program.project(TEXT, FILES)
    program.build(context).ok()
    before = {path: path.stat() for path in context.rglob("*")}
    changed(program, "src/main.c", "src/new")
    assert {path: path.stat() for path in context.rglob("*")} == before
    assert changed(program) == RUNS
    assert program.build(context).ok().executed == []


def test_the_reason_names_the_file(program: Program) -> None:
    context = program.project(TEXT, FILES)
    program.build(context).ok()
    nodes = {node["id"]: node for node in program.plan(context, "--changed", "src/main.c")["nodes"]}
    assert nodes["0.3"]["reason"] == "files-changed"
    assert "src/main.c" in nodes["0.3"]["explanation"]


def test_what_a_change_would_do_is_what_it_does(program: Program) -> None:
    context = program.project(TEXT, FILES)
    program.build(context).ok()
    would = changed(program, "lib/a")
    (context / "lib/a").write_text("another")
    ran = set(program.build(context).ok().executed)
    assert {name for name, status in would.items() if status == "miss"} <= ran
    assert not ran & {name for name, status in would.items() if status == "hit"}


def plan(program: Program, *arguments: str) -> Ran:
    return program.call("plan", program.root / "project", *program.base(), *arguments)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("src/x.log", "nothing that is built takes it: .dockerignore leaves it out"),
        ("notes/new.txt", "nothing that is built takes it: no COPY, ADD or mount names it"),
        ("docs/b.txt", "nothing that is built takes it"),
        ("Dockerfile", "the steps are those that stand in it now"),
        (".dockerignore", "what belongs to the context is decided by it as it is now"),
    ],
)
def test_what_no_step_takes_is_said(program: Program, path: str, words: str) -> None:
    program.build(program.project(TEXT, FILES)).ok()
    ran = plan(program, "--changed", path, "--changed", "lib/a").ok()
    assert ran.stderr.startswith(f"note: {path}: {words}")
    assert ran.stderr.count("note:") == 1, "lib/a is taken"


def test_the_sizes_of_files_that_nobody_wrote_yet_are_not_made_up(program: Program) -> None:
    program.build(program.project(TEXT, FILES)).ok()
    shown = plan(program, "--changed", "src/deep", "--changed", "src/new/file").ok().stdout
    assert "src/deep/er/x.c" in shown
    assert "src/new/file" in shown
    assert " B" not in shown


def test_paths_are_seen_from_where_the_user_stands_or_from_the_context(program: Program) -> None:
    context = program.project(TEXT, FILES)
    program.build(context).ok()

    def runs(path: str, directory: Path) -> str:
        words = ("plan", context, *program.base(), "--format", "json", "--changed", path)
        document = json.loads(program.call(*words, cwd=directory).ok().stdout)
        assert any(node["status"] == "miss" for node in document["nodes"])
        return " ".join(document["summary"]["changed"])

    assert runs("main.c", context / "src") == "src/main.c"
    assert runs("src/main.c", context / "src") == "src/main.c", "it is not there from here, but from the context"
    assert runs("project/src/new.c", context.parent) == "src/new.c", "one to come"
    assert runs("src/new.c", context.parent) == "src/new.c"
    assert runs("new.c", context / "src") == "src/new.c"
    assert runs("*.c", context / "src") == "src/main.c", "a wildcard that the shell left"
    assert runs("src/**/*.c", context.parent) == "src/deep/er/x.c src/main.c"
    assert runs(".", context) == "."


def test_what_lies_in_no_context_is_refused(program: Program) -> None:
    program.build(program.project(TEXT, FILES)).ok()
    for path in ("../elsewhere", "/etc/passwd", "nothing/*.c", "", "busybox:../x"):
        ran = plan(program, "--changed", path).failed(2)
        assert f"--changed {path}".strip() in ran.stderr
        assert "hint:" in ran.stderr


def test_files_of_a_named_context(program: Program) -> None:
    other = program.root / "other"
    (other / "o").mkdir(parents=True)
    (other / "o/f").write_text("f")
    context = program.project("FROM busybox\nCOPY --from=other o /o\nCOPY src /src\n", FILES)
    named = ("--build-context", f"other={other}")
    program.build(context, *named).ok()
    for path in (str(other / "o/f"), "other:o/f", "other:o/new"):
        nodes = program.plan(context, *named, "--changed", path)["nodes"]
        assert {node["id"]: node["status"] for node in nodes if node["kind"] == "copy"}["0.1"] == "miss"
    assert "note: other:p: nothing" in plan(program, *named, "--changed", "other:p").ok().stderr
