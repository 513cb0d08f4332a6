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
    first, second = ("a.2", "1.2") if nodes["1.2"]["like"] else ("1.2", "a.2")
    assert (nodes[first]["status"], nodes[first]["like"]) == ("miss", None)
    assert (nodes[second]["status"], nodes[second]["like"]) == ("depends", first)
    assert f"may come out the same as {first}" in told(program, context, second)
    ran = program.build(context).ok()
    assert len({first, second}.intersection(ran.executed)) == 1
    check_forecast(nodes, set(ran.executed), {}, contents(program.store))


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
