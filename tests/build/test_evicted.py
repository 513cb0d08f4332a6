"""What is said of a step whose result was evicted, dropped as damaged, or whose record went with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from test_crash import BASE

from cache.lmdb_store import LmdbStore
from cache.store import Batch

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

TEXT = BASE + "RUN echo one > /one\nARG COLOUR=red\nRUN echo $COLOUR > /two\nCOPY f /f\n"
ONE, TWO, COPY = "1.1", "1.3", "1.4"
FILE = "some text\n" * 10


def why(program: Program, node: str, project: Path, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        program.call("why", node, project, *program.base(), "--format", "json", *arguments).ok().stdout
    )
    return document


def explained(program: Program, project: Path, *arguments: str) -> dict[str, str]:
    """Node id → what plan says of it and the details of why."""
    nodes = program.plan(project, *arguments)["nodes"]
    found = {}
    for node in nodes:
        if node["id"] in (ONE, TWO, COPY):
            planned = why(program, node["id"], project, *arguments)["planned"]
            found[node["id"]] = "\n".join([node["explanation"], planned["explanation"], *planned["details"]])
    return found


@pytest.fixture
def built(program: Program) -> Path:
    project = program.project(TEXT, {"f": FILE})
    program.build(project).ok()
    return project


def test_after_everything_was_pruned_what_changed_is_still_named(program: Program, built: Path) -> None:
    program.call("cache", "prune", "--filter", "kind=step").ok()
    (built / "f").write_text(FILE + "more\n")
    said = explained(program, built, "--build-arg", "COLOUR=blue")
    assert "the value of COLOUR changed: red → blue" in said[TWO]
    assert "f changed" in said[COPY]
    assert "was evicted" in said[ONE]
    assert "kind step" in said[ONE], "by which rule"
    assert not any("no earlier build" in text for text in said.values())
    program.build(built, "--build-arg", "COLOUR=blue").ok()
    last = why(program, TWO, built, "--last", "--build-arg", "COLOUR=blue")["last_miss"]
    assert last["explanation"] == "the value of COLOUR changed: red → blue"
    assert "pruned: kind step" in why(program, ONE, built, "--last")["last_miss"]["explanation"]


def test_where_the_record_went_too_that_is_said(program: Program, built: Path) -> None:
    program.call("cache", "prune").ok()
    store = LmdbStore(str(program.store))
    store.commit(Batch(deleted=tuple(("preimages", key) for key, _ in store.scan("preimages"))))
    store.close()
    planned = why(program, TWO, built, "--build-arg", "COLOUR=blue")["planned"]
    text = "\n".join([planned["explanation"], *planned["details"]])
    assert "the record of that was evicted" in text
    assert "no named image needs it" in text, "when and why the result went"
    assert "no earlier build" not in text
    program.build(built, "--build-arg", "COLOUR=blue").ok()
    assert "was evicted" in why(program, TWO, built, "--last")["last_miss"]["explanation"]


def damage(program: Program) -> int:
    """One more byte behind each file of the store; how many bytes these have on disk."""
    total = 0
    for path in (program.store / "blobs").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            with open(path, "ab") as file:
                file.write(b"x")
            total += path.stat().st_blocks * 512
    return total


def test_what_a_repair_dropped_is_not_told_as_an_old_eviction(program: Program, built: Path) -> None:
    program.call("cache", "prune").ok()
    program.build(built).ok()
    there = damage(program)
    said = program.call("cache", "verify", "--repair").ok().stdout
    assert there > 1 << 20
    before, _, _ = next(line for line in said.splitlines() if line.endswith(" came back")).partition(" came back")
    number, unit = before.split()
    assert float(number) * {"KiB": 1 << 10, "MiB": 1 << 20}[unit] >= there * 0.95
    reason = why(program, "base.1", built)["planned"]
    assert reason["reason"] == "evicted"
    assert "damaged, dropped by cache verify --repair" in reason["explanation"]
    assert "no named image" not in reason["explanation"]
    assert program.build(built).ok().executed
