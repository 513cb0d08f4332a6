"""`--trace`: the file of a real build, also of one that fails, and what is said when there can be none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trace_schema import bars, check, steps

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\n"


def test_a_build_leaves_a_trace_and_a_second_one_says_what_was_known(program: Program, tmp_path: Path) -> None:
    project = program.project(
        BASE + "FROM base AS a\nRUN sleep 3; echo a > /a\nFROM base AS b\nRUN echo b > /b\nFROM base\nCOPY --from=b /b /\nCOPY --from=a /a /\nRUN sleep 0.2\n"
    )
    path = tmp_path / "trace.json"
    ran = program.build(project, "--trace", path, "-o", f"type=oci,dest={tmp_path / 'image.tar'}").ok()
    found = check(path.read_bytes())
    named = steps(found)
    assert {name for name, each in named.items() if each[0]["args"]["status"] == "ran"} == set(ran.executed)
    (slow,), (last,) = named["a.1"], named["3.3"]
    assert slow["dur"] > 3_000_000
    assert last["ts"] >= slow["ts"] + slow["dur"], "it took from it"
    assert slow["args"]["reason"] == "never-built"
    assert len(slow["args"]["key"]) == 64
    assert found["otherData"]["critical_path"][-2:] == ["3.2", "3.3"]
    assert "a.1" in found["otherData"]["critical_path"]
    assert "b.1" not in found["otherData"]["critical_path"]
    assert "exporting" in {each["cat"] for each in bars(found)}
    assert found["otherData"]["digest"] == next(event["digest"] for event in ran.events if event["event"] == "ended")
    announced = next(event for event in ran.events if event["event"] == "announced")
    assert {each["id"]: each["inputs"] for each in announced["nodes"]}["3.2"] == ["3.1", "a.1"]

    program.build(project, "--trace", path).ok()
    again = check(path.read_bytes())
    assert {each["args"]["status"] for group in steps(again).values() for each in group} == {"cached"}
    assert {each["args"]["reason"] for group in steps(again).values() for each in group} == {"same-recipe"}
    assert again["otherData"]["critical_path"] == []


def test_a_build_that_fails_leaves_one_too(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    project = program.project(BASE + "FROM base\nRUN echo before\nRUN sleep 0.2; exit 3\n")
    program.build(project, "--trace", path).failed(1)
    found = check(path.read_bytes())
    (bar,) = steps(found)["1.2"]
    assert bar["args"]["status"] == "failed"
    assert bar["dur"] > 200_000
    assert found["otherData"]["complete"]
    assert not found["otherData"]["ok"]


def test_a_file_that_cannot_be_is_told_before_anything_runs(program: Program, tmp_path: Path) -> None:
    project = program.project(BASE + "FROM base\nRUN echo hi\n")
    for path, code, text in ((tmp_path, 2, "is a directory"), (tmp_path / "none" / "t", 4, "there is no directory")):
        ran = program.build(project, "--trace", path).failed(code)
        assert text in ran.stderr
        assert not ran.executed
