"""What plan and why say of steps whose end only the build can tell, before it and after it."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from tests.rebuild.test_rebuild import check_forecast, contents, told

if TYPE_CHECKING:
    from pathlib import Path

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


def last_of(program: Program, context: Path, node: str) -> tuple[dict[str, Any], dict[str, Any]]:
    ran = program.call("why", node, context, *program.base(), "--last", "--format", "json").ok()
    document = json.loads(ran.stdout)
    return document["last_build"], document["last_miss"]


def test_the_last_build_is_told_even_where_nothing_ran_in_it(program: Program) -> None:
    text = "FROM busybox\nRUN echo 1\nRUN test -e /no\nRUN echo 3\n"
    context = program.project(text)
    program.build(context).failed(1)
    assert "came to it" not in told(program, context, "0.2", "--last")
    assert "failed before it came to it" in told(program, context, "0.3", "--last")
    last, miss = last_of(program, context, "0.3")
    assert (last["ok"], last["status"], miss) == (False, None, None)
    good = text.replace("/no", "/bin")
    context = program.project(good)
    program.build(context).ok()
    program.build(context).ok()
    said = told(program, context, "0.2", "--last")
    assert re.search(r"  the last build \(.* by .*\) took it from the cache\n\n  ran in the build of ", said)
    last, miss = last_of(program, context, "0.2")
    assert (last["status"], miss["status"], last["build"] != miss["build"]) == ("cached", "ran", True)


def test_a_list_that_several_steps_share_is_said_once(program: Program) -> None:
    lines = "".join(f"RUN echo {number}\n" for number in range(6))
    context = program.project(f"FROM busybox\nARG A=1\nARG B=1\nCOPY f /f\n{lines}", {"f": "f"})
    program.build(context).ok()
    (context / "f").write_text("ff")
    options = ("--build-arg", "A=2", "--build-arg", "B=2")
    said = told(program, context, "0.9", *options)
    assert said.count("the value of A changed: 1 → 2") == 1
    assert said.count("f changed (1 B → 2 B)") == 1, "what is behind all that is not left out"
    assert len(said.splitlines()) < 14
    shown = program.call("plan", context, *program.base(), *options).ok().stdout
    assert shown.count("the value of A changed: 1 → 2") <= 1


def test_a_base_of_ours_is_told_by_the_first_layer_that_differs(program: Program) -> None:
    base = program.project("FROM busybox\nRUN echo 1 > /v\nRUN echo last > /w\n", name="base")
    app = program.project("FROM own:1\nRUN cat /v\n", name="app")
    program.build(base, "-t", "own:1").ok()
    program.build(app).ok()
    program.build(program.project("FROM busybox\nRUN echo 2 > /v\nRUN echo last > /w\n", name="base"), "-t", "own:1").ok()
    said = told(program, app, "0.1")
    assert re.search(r"the base image changed: own:1 \(layer 2 of 3: sha256:(\w{12}) → sha256:(?!\1)\w{12}\)\n", said)
    assert "- own:1" not in said


def test_a_symlink_is_told_by_where_it_points(program: Program) -> None:
    context = program.project("FROM scratch\nCOPY d /d\nCOPY top /top\n", {"d/a": "a", "d/b": "b"})
    (context / "d/l").symlink_to("a")
    (context / "top").symlink_to("d/b")
    program.build(context).ok()
    plan = program.call("plan", context, *program.base(), "--changed", "d/l").ok()
    assert "because d/l changed" in plan.stdout
    assert "note:" not in plan.stderr
    named = program.call("plan", context, *program.base(), "--changed", "top").ok()
    assert "note: top: it is a symlink, and where it will lead is not known; --changed d/b shows" in named.stderr
    (context / "d/l").unlink()
    (context / "d/l").symlink_to("b")
    assert "would run: d/l points to b, was a\n" in told(program, context, "0.1")
    (context / "d/l").unlink()
    (context / "d/l").write_text("file")
    assert "d/l changed (a symlink → a file)" in told(program, context, "0.1")


def test_a_file_of_two_contexts_that_one_of_them_gives_is_taken(program: Program) -> None:
    """The directory of the named context lies inside the build's own, which nothing takes it from."""
    files = {"f": "f", "oth/o": "o", "oth/p": "p", ".dockerignore": "oth/p\n"}
    context = program.project("FROM scratch\nCOPY f /f\nCOPY --from=other o /o\n", files)
    options = (*program.base(), "--build-context", f"other={context / 'oth'}")
    program.build(context, *options).ok()
    for word in ("oth/o", "other:o"):
        ran = program.call("plan", context, *options, "--changed", word).ok()
        assert ("note:" in ran.stderr, "1 to run" in ran.stdout) == (False, True), ran.stderr
    untaken = program.call("plan", context, *options, "--changed", "oth/p").ok().stderr
    assert "note: oth/p: nothing that is built takes it: .dockerignore leaves it out\n" in untaken
    assert "note: other:p: nothing that is built takes it: no COPY, ADD or mount names it\n" in untaken


def test_steps_that_a_base_left_stand_where_it_is_named(program: Program) -> None:
    base = program.project("FROM busybox\nONBUILD RUN echo one > /one\nONBUILD COPY f /f\nONBUILD RUN cat /one /f\n", name="base")
    program.build(base, "-t", "ob:1").ok()
    text = "# what it is\nARG B=ob:1\n\nFROM ob:1\nRUN echo own\n"
    context = program.project(text, {"f": "f"})
    assert "0.on3  RUN cat /one /f  (line 4, ONBUILD of ob:1)\n" in told(program, context, "0.on3")
    lines = {node["id"]: node["line"] for node in program.plan(context)["nodes"]}
    assert (lines["0.on1"], lines["0.on3"], lines["0.1"]) == (4, 4, 5)
    listed = program.call("why", "4", context, *program.base()).failed(2).stderr
    assert "line 4 of the Dockerfile holds FROM and 3 steps, ONBUILD of ob:1" in listed
    assert "0.on1 (RUN), 0.on2 (COPY), 0.on3 (RUN)" in listed
    page = program.call("plan", context, *program.base(), "--format", "html").ok().stdout
    assert "<td>4, ONBUILD of ob:1</td>" in page
    program.build(program.project("FROM busybox\nONBUILD RUN exit 7\n", name="base"), "-t", "ob:1").ok()
    failed = program.build(context).failed(1).stderr
    assert f"error: {context}/Dockerfile:4:1, ONBUILD of ob:1: " in failed
    assert "   4 | FROM ob:1\n" in failed
    assert "RUN exit 7" in told(program, context, "4"), "one alone is meant by the line"
    (context / "f").unlink()
    program.build(program.project("FROM busybox\nONBUILD COPY f /f\n", name="base"), "-t", "ob:1").ok()
    assert "Dockerfile:4:1, ONBUILD of ob:1: " in program.build(context).failed(3).stderr


def test_of_what_differed_from_a_layer_that_is_gone_only_that_is_said(program: Program) -> None:
    context = program.project("FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n")
    program.build(context).ok()
    program.call("cache", "prune", "--filter", "kind=step").ok()
    program.build(context).ok()
    words = "not deterministic: its output differed; its earlier layer is gone, so where is not known"
    assert f"  {words}\n  recipe key" in told(program, context, "0.1")
    shown = " ".join(program.call("plan", context, *program.base()).ok().stdout.split())
    assert words in shown
    assert "1 path" not in shown
