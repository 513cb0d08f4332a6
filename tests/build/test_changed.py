"""`plan --changed`: what would run if files changed, without anyone touching them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from program import Program

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
