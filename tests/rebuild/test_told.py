"""What plan and why say of steps whose end only the build can tell, before it and after it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.rebuild.test_rebuild import check_forecast, contents, told

if TYPE_CHECKING:
    from program import Program


def test_equal_steps_that_only_the_build_can_tell(program: Program) -> None:
    """The COPY of the second stage looks at nothing that the RUN below it makes, but that is not known before."""
    text = "FROM busybox AS a\nRUN echo a > /a\nCOPY f /f\nFROM busybox\nRUN echo b > /b\nCOPY f /f\nCOPY --from=a /f /g\n"
    context = program.project(text, {"f": "f"})
    nodes = {node["id"]: node for node in program.plan(context)["nodes"]}
    for name, other in (("a.2", "1.2"), ("1.2", "a.2")):
        assert (nodes[name]["status"], nodes[name]["like"]) == ("depends", other), "which is first is a race"
        assert f"may come out the same as {other}" in told(program, context, name)
    ran = program.build(context).ok()
    assert len({"a.2", "1.2"}.intersection(ran.executed)) == 1
    check_forecast(nodes, set(ran.executed), {}, contents(program.store))


def test_of_equal_steps_that_wait_none_is_foretold_to_run(program: Program) -> None:
    """The one that the schedule has first may be overtaken: the other waits for less than was expected."""
    files = {"a.txt": "a"}
    text = "FROM busybox AS s0\nFROM busybox AS s2\n# buildgraph: no-cache\nRUN sleep 0.2\n"
    program.build(program.project(text, files), "--target", "s2").ok()
    text = "FROM busybox AS s0\nRUN sleep 0.6\nCOPY a.txt /pp/\nFROM busybox AS s2\n# buildgraph: no-cache\nRUN sleep 0.2\n"
    context = program.project(text + "COPY a.txt /pp/\nFROM s0\nCOPY --from=s2 / /x/\n", files)
    nodes = {node["id"]: node for node in program.plan(context)["nodes"]}
    assert {nodes[name]["status"] for name in ("s0.2", "s2.2")} == {"depends"}
    assert (nodes["s0.2"]["like"], nodes["s2.2"]["like"]) == ("s2.2", "s0.2")
    ran = program.build(context).ok()
    assert len({"s0.2", "s2.2"}.intersection(ran.executed)) == 1
    check_forecast(nodes, set(ran.executed), {}, contents(program.store))


def test_of_equal_steps_the_one_that_surely_begins_first_runs(program: Program) -> None:
    program.build(program.project("FROM busybox\n")).ok()
    text = "FROM busybox AS a\nCOPY f /p/\nFROM busybox AS b\nRUN echo b > /b\nCOPY f /p/\nFROM a\nCOPY --from=b /p /q\n"
    context = program.project(text, {"f": "f"})
    nodes = {node["id"]: node for node in program.plan(context)["nodes"]}
    assert (nodes["a.1"]["status"], nodes["b.2"]["status"], nodes["b.2"]["like"]) == ("miss", "depends", "a.1")
    assert "a.1" in program.build(context).ok().executed


def test_where_all_results_went_each_step_says_that_its_own_did(program: Program) -> None:
    context = program.project("FROM busybox\nRUN echo 1 > /1\nRUN cat /1 > /2\n")
    program.build(context).ok()
    program.call("cache", "prune", "--filter", "kind=step").ok()
    nodes = {node["id"]: node for node in program.plan(context)["nodes"]}
    assert [nodes[name]["status"] for name in ("0.0", "0.1", "0.2")] == ["miss", "depends", "depends"]
    assert {nodes[name]["if_same"] for name in ("0.1", "0.2")} == {"miss"}
    assert "runs anyway, also if what 0.0 makes stays the same" in program.call("plan", context, *program.base()).ok().stdout
    said = told(program, context, "0.2")
    assert "if that comes out as before, it runs anyway" in said
    assert "since 0.0 runs: its result was evicted" in said
    assert "its own result was evicted" in said
    ran = program.build(context).ok()
    check_forecast(nodes, set(ran.executed), contents(program.store), contents(program.store))
    assert ran.executed == ["0.0", "0.1", "0.2"]


def test_a_step_above_one_that_came_out_otherwise(program: Program) -> None:
    text = "FROM busybox\n# buildgraph: no-cache\nRUN cat /proc/sys/kernel/random/uuid > /id\nRUN cat /id > /copy\n"
    context = program.project(text)
    program.build(context).ok()
    assert "0.1 runs: the comment" in told(program, context, "0.2")
    assert program.build(context).ok().executed == ["0.1", "0.2"]
    assert "came out otherwise this time" in told(program, context, "0.2", "--last")


def test_why_speaks_of_the_past_of_a_build_that_was(program: Program) -> None:
    context = program.project("FROM busybox\nRUN echo 1\n")
    assert "no earlier build of this step is known" in told(program, context, "0.1")
    program.build(context).ok()
    assert "no earlier build of this step was known" in told(program, context, "0.1")


def test_a_cause_is_followed_once_however_many_ways_lead_to_it(program: Program) -> None:
    """Each stage builds on the one below and takes from it too: 2 to the 24th ways lead down to the file."""
    lines = ["FROM scratch AS s0", "COPY f /f"]
    for number in range(1, 25):
        lines += [f"FROM s{number - 1} AS s{number}", f"COPY --from=s{number - 1} /f /f{number}"]
    context = program.project("\n".join(lines) + "\n", {"f": "f"})
    program.build(context).ok()
    (context / "f").write_text("other")
    began = time.monotonic()
    assert "f changed (1 B → 5 B)" in told(program, context, "s24.1")
    assert time.monotonic() - began < 10  # it takes a quarter of a second; without remembering, hours
