"""What the commands beside `build` know of the team's cache: plan, log, doctor, image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving import make_token
from team import CacheServer, tasks, warnings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeMachine, Serve

STEPS = """
FROM busybox
RUN echo it was said once; head -c 3000000 /dev/urandom > /large
COPY source /source
RUN cat /source > /made; wc -c /large >> /made
"""


def test_plan_says_what_the_remote_has_and_what_has_to_be_fetched(machine: MakeMachine, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    given = server.meter.given
    full = second.plan(second.project(STEPS, {"source": "x"}))
    steps = [node for node in full["nodes"] if node["kind"] in ("run", "copy")]
    assert {node["status"] for node in steps} == {"hit"}
    assert {node["where"] for node in steps if node["where"]} == {"remote"}
    assert full["summary"]["moved_bytes"] == 0
    changed = second.plan(second.project(STEPS, {"source": "y"}))
    by_id = {node["id"]: node for node in changed["nodes"]}
    large = next(node for node in changed["nodes"] if "large" in node["instruction"] and node["status"] == "hit")
    assert large["moved_bytes"] >= 3_000_000
    assert by_id[large["id"]]["where"] == "remote"
    assert changed["summary"]["moved_bytes"] >= 3_000_000
    assert server.meter.given - given < 100_000, "a plan fetches no layer"
    text = second.call("plan", second.root / "project", *second.program.base(), "--remote", second.remote).ok().stdout
    assert "remote" in text
    assert "fetches" in text


def test_a_plan_of_a_remote_that_is_down_is_a_plan(machine: MakeMachine) -> None:
    alone = machine("a", remote="grpc://127.0.0.1:9")
    ran = alone.call("plan", alone.project(STEPS, {"source": "x"}), *alone.program.base(), "--remote", alone.remote).ok()
    assert "does not answer" in ran.stderr
    assert "WARNING" in ran.stderr


def test_plan_and_build_agree(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    context = second.project(STEPS, {"source": "y"})
    steps = [node for node in second.plan(context)["nodes"] if node["kind"] in ("run", "copy")]
    foretold = {node["id"] for node in steps if node["status"] == "miss"}
    assert foretold
    assert foretold == set(second.build(context).ok().executed)


def test_the_log_of_a_step_comes_from_where_it_ran(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    context = second.project(STEPS, {"source": "x"})
    second.build(context).ok()
    shown = second.call("log", "0.1", context, *second.program.base(), "--remote", second.remote).ok()
    assert shown.stdout == "it was said once\n"
    second.call("log", "0.1", context).failed(4)


def test_doctor_tells_about_the_remote(machine: MakeMachine, server: CacheServer) -> None:
    alone = machine("a")
    told = alone.call("doctor", "--remote", server.url).stdout
    assert f"{server.url} answers" in told
    assert "you are anonymous" in told
    assert "publishes in (default)" in told
    down = alone.call("doctor", "--remote", "grpc://127.0.0.1:9").stdout
    assert "• remote" in down


def test_an_image_that_is_only_promised_can_be_exported(machine: MakeMachine, tmp_path: Path) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"}), "-t", "app").ok()
    second.build(second.project(STEPS, {"source": "x"}), "-t", "app").ok()
    without = second.call("image", "export", "app", "-o", f"type=tar,dest={tmp_path / 'x.tar'}").failed(4)
    assert "--remote" in without.stderr
    first.call("image", "export", "app", "-o", f"type=tar,dest={tmp_path / 'a.tar'}").ok()
    second.call("image", "export", "app", "-o", f"type=tar,dest={tmp_path / 'b.tar'}", "--remote", second.remote).ok()
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_namespaces_are_read_in_order_and_one_is_written(machine: MakeMachine, server: CacheServer) -> None:
    main = machine("a", remote=f"{server.url}/main")
    branch = machine("b", "--remote-read", "pr/7", "--remote-read", "main", "--remote-write", "pr/7")
    other = machine("c", remote=f"{server.url}/other")
    main.build(main.project(STEPS, {"source": "x"})).ok()
    found = branch.build(branch.project(STEPS, {"source": "x"})).ok()
    assert not found.executed
    assert not any(name.startswith("publishing") for name in tasks(found)), "main is read, so it need not be there twice"
    branch.build(branch.project(STEPS, {"source": "y"})).ok()
    assert not warnings(found)
    assert other.build(other.project(STEPS, {"source": "x"})).ok().executed, "namespaces are trust domains"
    again = machine("d", remote=f"{server.url}/main")
    assert again.build(again.project(STEPS, {"source": "y"})).ok().executed, "a branch does not write to main"


def test_why_of_a_step_that_the_remote_had(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    context = second.project(STEPS, {"source": "x"})
    second.build(context).ok()
    told = second.call("why", "0.1", context, *second.program.base(), "--remote", second.remote).ok().stdout
    assert "cached: its recipe is known" in told
    assert ", remote by " in told


def test_a_plan_counts_bytes_once_that_several_stages_stand_on(machine: MakeMachine) -> None:
    base = "FROM busybox\nRUN head -c 2000000 /dev/urandom > /large\n"
    first, second = machine("a"), machine("b")
    first.build(first.project(base)).ok()
    for name in ("base:1", "base:2"):
        second.build(second.project(base), "-t", name).ok()
    one = "FROM base:1\nRUN true\n"
    two = "FROM base:1 AS one\nRUN true\nFROM base:2\nRUN false || true\nCOPY --from=one /bin /x\n"
    sizes = [second.plan(second.project(text))["summary"]["moved_bytes"] for text in (one, two)]
    assert sizes[0] == sizes[1] > 2_000_000


COPIED = """
FROM busybox AS build
COPY words.txt /words.txt
RUN cat /words.txt > /made
FROM busybox
COPY --from=build /made /made
RUN cat /made > /final
"""


def test_after_a_full_hit_it_is_known_what_changed(machine: MakeMachine) -> None:
    """The second one never ran a step, and the stage that is copied from it did not even ask about."""
    first, second = machine("a"), machine("b")
    first.build(first.project(COPIED, {"words.txt": "one\n"})).ok()
    assert not second.build(second.project(COPIED, {"words.txt": "one\n"})).ok().executed
    context = second.project(COPIED, {"words.txt": "three\n"})
    planned = {node["id"]: node for node in second.plan(context)["nodes"]}
    assert planned["build.1"]["reason"] == "files-changed"
    assert planned["build.1"]["explanation"] == "words.txt changed (4 B → 6 B)"
    assert planned["build.2"]["explanation"] == "it waits for what build.1 makes", "as where it was made"
    told = second.call("why", "build.1", context, *second.program.base(), "--remote", second.remote).ok().stdout
    assert "would run: words.txt changed (4 B → 6 B)" in told
    ran = second.build(context).ok()
    whys = {event["id"]: event["why"] for event in ran.events if event["event"] == "started"}
    assert whys["build.1"] == "words.txt changed (4 B → 6 B)"
    assert not any("evicted" in why or "new here" in why for why in whys.values())


def test_a_command_that_changed_after_a_full_hit_is_told(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(COPIED, {"words.txt": "one\n"})).ok()
    second.build(second.project(COPIED, {"words.txt": "one\n"})).ok()
    changed = COPIED.replace("cat /words.txt", "cat  -u /words.txt").replace("cat /made > /final", "cat /made /made > /final")
    planned = {node["id"]: node for node in second.plan(second.project(changed, {"words.txt": "one\n"}))["nodes"]}
    assert planned["build.2"]["reason"] == "command-changed"
    assert planned["1.2"]["reason"] == "command-changed"


def test_where_a_result_is_that_is_not_here(machine: MakeMachine, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(COPIED, {"words.txt": "one\n"})).ok()
    context = second.project(COPIED, {"words.txt": "one\n"})
    second.build(context).ok()
    server.stop()
    alone = {node["id"]: node for node in second.program.plan(context)["nodes"]}
    assert alone["1.0"]["explanation"] == f"its result is only at {server.url}, which is not asked"
    ran = second.build(context, "--no-cache-filter", "1").ok()
    assert sum("does not answer" in text for text in warnings(ran)) == 1
    whys = {event["id"]: event["why"] for event in ran.events if event["event"] == "started"}
    assert whys["build.1"] == f"its result is only at {server.url}, which does not answer"


def test_a_server_that_went_away_is_named_as_the_reason(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(COPIED, {"words.txt": "one\n"})).ok()
    context = second.project(COPIED, {"words.txt": "one\n"})
    second.build(context).ok()
    server.stop()
    ran = second.build(context, "-o", f"type=oci,dest={tmp_path / 'out.tar'}").ok()
    whys = {event["id"]: event["why"] for event in ran.events if event["event"] == "started"}
    assert {"1.1", "1.2", "build.1", "build.2"} <= set(whys)
    assert set(whys.values()) == {f"its result is only at {server.url}, which does not answer"}


def test_an_export_that_is_refused_tells_why(machine: MakeMachine, serve: Serve, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "team", "--name", "ann", "--scope", "read,write")
    serving = serve(store=tmp_path / "team")
    remote = f"grpc://{serving.address}"
    first, second = (machine(name, remote=remote, env={"BUILDGRAPH_TOKEN": secret}) for name in "ab")
    for each in (first, second):
        each.build(each.project(STEPS, {"source": "x"}), "-t", "app").ok()
    second.program.env["BUILDGRAPH_TOKEN"] = "bgt_wrong_0000"
    out = f"type=tar,dest={tmp_path / 'b.tar'}"
    refused = second.call("image", "export", "app", "-o", out, "--remote", remote).failed(5)
    assert refused.stderr.count("WARNING") == 1
    assert "it does not know this token" in refused.stderr
    assert "what only it has cannot be taken out" in refused.stderr
    assert f"is only at {remote}, which does not know this token" in " ".join(refused.stderr.split())
    assert "promised" not in refused.stderr
