"""Every change of the table through plan, why and build: what runs, what was foretold, and the reason that is given."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from program import Program, Ran

from cache import encoding
from cache.build_record import BuildRecord, all_builds
from cache.lmdb_store import LmdbStore
from cache.result import Result
from cache.run_dir import remove_tree
from cache.store import Batch
from tests.rebuild import more_table, table
from tests.rebuild.table import ALL, Change, Project

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PROJECTS = {**table.PROJECTS, **more_table.PROJECTS}
TABLE = [*table.TABLE, *more_table.TABLE]
ROWS = [pytest.param(change, id=change.name) for change in table.TABLE]
ROWS += [pytest.param(change, id=change.name, marks=pytest.mark.slow) for change in more_table.TABLE]
SECRETS = ("hunter2", "opensesame", "swordfish")
"""Values that nothing may say."""
STEPS = ("run", "copy", "add", "workdir")


class Built:
    """Each project built once, in a store of its own that tests copy."""

    def __init__(self, root: Path, busybox: Path) -> None:
        self.root = root
        self._busybox = busybox
        self._images: dict[str, str] = {}

    def start(self, name: str) -> tuple[Program, Path, str]:
        """A program whose store has the project built, its context as it was then, and the image's id."""
        template, context = self.root / f"store-{name}", self.root / name / "project"
        program = Program(self.root / name, self._busybox)
        write(context, PROJECTS[name])
        if name not in self._images:
            program.store = template
            program.env["BUILDGRAPH_STORE"] = str(template)
            self._images[name] = image_of(program, context, *options_of(context, PROJECTS[name].options))
        program.store = self.root / name / "store"
        program.env["BUILDGRAPH_STORE"] = str(program.store)
        if program.store.exists():
            remove_tree(str(program.store))
        shutil.copytree(template, program.store, symlinks=True)
        return program, context, self._images[name]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Built]:
    made = Built(tmp_path_factory.mktemp("rebuild"), busybox)
    yield made
    for store in made.root.glob("**/*store*"):
        if (store / "data.mdb").exists():
            Program(made.root, busybox).call("cache", "clear", "--store", store)


def write(context: Path, project: Project) -> None:
    """The project's files as they are before the change, with times that say so."""
    if context.exists():
        remove_tree(str(context))
    context.mkdir(parents=True)
    (context / "Dockerfile").write_text(project.dockerfile)
    for name, text in project.files.items():
        put(context / name, text)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if text.startswith("->"):
        path.symlink_to(text[2:])
        return
    path.write_text(text)
    path.chmod(0o644)


def options_of(context: Path, options: Iterable[str]) -> list[str]:
    return [option.replace("{context}", str(context)) for option in options]


def apply(context: Path, change: Change) -> None:
    text = (context / "Dockerfile").read_text()
    for old, new in change.edits:
        assert old in text, f"{old!r} is not in the Dockerfile"
        text = text.replace(old, new, 1)
    (context / "Dockerfile").write_text(text)
    for name, content in change.files.items():
        if content is None:
            (context / name).unlink()
        else:
            put(context / name, content)
    for name, mode in change.modes.items():
        (context / name).chmod(mode)


def image_of(program: Program, context: Path, *options: str) -> str:
    return image(program.build(context, *options).ok())


def image(ran: Ran) -> str:
    digest: str = next(event["digest"] for event in ran.events if event["event"] == "ended")
    return digest


def why(program: Program, context: Path, node: str, *options: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        program.call("why", node, context, *program.base(), "--format", "json", *options).ok().stdout
    )
    return document


def contents(store: Path) -> dict[str, str]:
    """Node id → what its layer said, in the newest build of a store."""
    opened = LmdbStore(str(store))
    try:
        build: BuildRecord = all_builds(opened)[-1]
        records = opened.get_many("results", [node.content for node in build.nodes])
        results = {node.id: Result.from_json(encoding.parse(records[node.content])) for node in build.nodes}
        return {name: result.layer.content for name, result in results.items() if result.layer is not None}
    finally:
        opened.close()


def check_reason(change: Change, found: dict[str, Any], *, waits: bool = False) -> None:
    """waits: the step depends on others; then its details begin with what is known to have changed."""
    _, reason, *words = change.why
    said = "\n".join([found["explanation"], *found["details"]])
    assert found["reason"] == ("input-open" if waits else reason), said
    for word in words:
        assert word in said
    assert "no longer in the store" not in said, "nothing went in these rows"
    assert not [secret for secret in SECRETS if secret in said]


def check_ran(executed: list[str], expected: str, steps: set[str]) -> None:
    """What ran is what had to run, and each step once."""
    assert len(executed) == len(set(executed))
    groups = [{name} for name in steps] if expected == ALL else [set(each.split("|")) for each in expected.split()]
    assert all(len(group.intersection(executed)) == 1 for group in groups), f"{executed}, not {expected}"
    assert set(executed) <= set().union(*groups), f"{executed}, not {expected}"


def check_forecast(nodes: dict[str, dict[str, Any]], ran: set[str], before: dict[str, str], after: dict[str, str]) -> None:
    """What was foretold is what happened."""

    def layers(name: str) -> list[str]:
        """The steps that a node's filesystem is made of."""
        chain = [name] if nodes[name]["kind"] in STEPS else []
        return chain + (layers(nodes[name]["inputs"][0]) if nodes[name]["inputs"] else [])

    for name, node in nodes.items():
        if node["kind"] not in STEPS or node["same_as"]:
            continue
        # Which of equal steps begins first, and so runs, is a race; that no other one does is none.
        group = [name, *(other for other, each in nodes.items() if each["same_as"] == name)]
        runs = sum(each in ran for each in group)
        if node["status"] == "miss":
            assert runs == 1, f"{name} was to run: {node['explanation']}"
        elif node["status"] == "hit":
            assert runs == 0, f"{name} was to be a hit: {node['explanation']}"
        else:
            assert runs <= 1
            below = {step for name in node["inputs"] for step in layers(name)}
            same = all(before.get(step) == after.get(step) for step in below)
            if same and node["if_same"]:
                assert bool(runs) == (node["if_same"] == "miss"), f"{name}: {node['if_same']} if all stays the same"


@pytest.mark.parametrize("change", ROWS)
def test_a_change_runs_what_it_must_and_says_why(built: Built, change: Change) -> None:
    program, context, earlier = built.start(change.project)
    before = contents(program.store)
    apply(context, change)
    # The later of two equal options counts, as with most programs.
    options = options_of(context, (*PROJECTS[change.project].options, *change.options))
    plan = program.plan(context, *options)
    nodes = {node["id"]: node for node in plan["nodes"]}
    steps = {name for name, node in nodes.items() if node["kind"] in STEPS}
    if change.why:
        planned = why(program, context, change.why[0], *options)["planned"]
        assert planned["status"] == nodes[change.why[0]]["status"] != "hit"
        check_reason(change, planned, waits=planned["status"] == "depends")
    ran = program.build(context, *options).ok()
    executed = set(ran.executed)
    check_ran(ran.executed, change.ran, steps)
    check_forecast(nodes, executed, before, contents(program.store))
    if change.why:
        check_reason(change, why(program, context, change.why[0], "--last", *options)["last_miss"])
    made = image(ran)
    if change.same_image is not None:
        assert (made == earlier) == change.same_image
    check_settled(program, context, options, executed if change.again else set(), made)


def check_settled(program: Program, context: Path, options: list[str], again: set[str], made: str) -> None:
    """Once built, nothing is left to do but what is wanted again each time, and the image stays."""
    nodes = {node["id"]: node for node in program.plan(context, *options)["nodes"]}
    assert {name for name, node in nodes.items() if node["status"] == "miss"} == again
    assert again or {node["status"] for node in nodes.values()} == {"hit"}
    ran = program.build(context, *options).ok()
    assert set(ran.executed) == again
    assert image(ran) == made


@pytest.mark.parametrize("name", PROJECTS)
def test_the_first_build_runs_everything(name: str, program: Program) -> None:
    """From an empty store each step runs, equal ones once, and the plan says so, with its numbers."""
    context = program.root / name
    write(context, PROJECTS[name])
    options = options_of(context, PROJECTS[name].options)
    plan = program.plan(context, *options)
    nodes = {node["id"]: node for node in plan["nodes"]}
    steps = {name: node for name, node in nodes.items() if node["kind"] in STEPS}
    assert {node["reason"] for node in steps.values()} <= {"never-built", "same-step"}
    ran = program.build(context, *options).ok()
    summary = plan["summary"]
    assert (len(ran.executed), len(ran.cached)) == (summary["misses"], summary["hits"])
    assert summary["hits"] == summary["same"] == len(steps) - summary["misses"]
    check_forecast(nodes, set(ran.executed), {}, contents(program.store))
    assert {each["id"] for each in summary["spans"]} == {name for name, node in steps.items() if not node["same_as"]}
    check_settled(program, context, options, set(), image(ran))


def test_there_are_enough_rows() -> None:
    assert len(TABLE) >= 60
    assert len({change.name for change in TABLE}) == len(TABLE)


def drop(program: Program, node: str, rule: str) -> None:
    """Have a result evicted, as a clean-up does it."""
    store = LmdbStore(str(program.store))
    try:
        content = next(each.content for each in all_builds(store)[-1].nodes if each.id == node)
        tombstone = (("evictions", content, encoding.canonical([1_700_000_000, rule, 5, ""])),) if rule else ()
        store.commit(Batch(records=tombstone, deleted=(("results", content),)))  # type: ignore[arg-type]
    finally:
        store.close()


@pytest.mark.parametrize(("rule", "reason", "word"), [("unused for 30 days", "evicted", "unused for 30 days"), ("", "gone", "no longer")])
def test_a_result_that_went(built: Built, rule: str, reason: str, word: str) -> None:
    program, context, earlier = built.start("app")
    drop(program, "2.3", rule)
    planned = why(program, context, "2.3")["planned"]
    assert (planned["status"], planned["reason"], word in planned["explanation"]) == ("miss", reason, True)
    ran = program.build(context).ok()
    assert ran.executed == ["2.3"]
    last = why(program, context, "2.3", "--last")["last_miss"]
    assert (last["reason"], word in last["explanation"]) == (reason, True)
    assert image(ran) == earlier


def test_a_change_that_is_undone(built: Built) -> None:
    """What was built before the change is still known, and gives the image that it gave."""
    program, context, earlier = built.start("app")
    put(context / "main.c", "main more")
    assert program.build(context).ok().executed
    put(context / "main.c", "main")
    assert program.build(context).ok().executed == []
    assert image_of(program, context) == earlier


def test_a_step_above_link_sees_what_is_below_it(program: Program) -> None:
    """--link makes the COPY itself independent of what it stands on, not the steps above."""
    text = "FROM busybox\nRUN echo one > /below\nCOPY --link f /f\nRUN cat /below > /above\n"
    context = program.project(text, {"f": "f"})
    program.build(context).ok()
    (context / "Dockerfile").write_text(text.replace("echo one", "echo two"))
    assert program.statuses(context) == {"0.0": "hit", "0.1": "miss", "0.2": "hit", "0.3": "depends"}
    planned = why(program, context, "0.3")["planned"]
    assert planned["explanation"] == "it waits for what 0.1 makes"
    assert "«RUN echo two > /below»: the command changed: echo [one → two] > /below" in planned["details"][0]
    files = program.files(context)
    assert (files / "above").read_text() == "two\n"
    assert why(program, context, "0.3", "--last")["last_miss"]["explanation"] in planned["details"][0]


def test_a_step_that_failed_is_compared_with_what_it_was(built: Built) -> None:
    program, context, earlier = built.start("lines")
    good = (context / "Dockerfile").read_text()
    (context / "Dockerfile").write_text(good.replace("echo b >", "exit 7; echo b >"))
    program.build(context).failed(1)
    last = why(program, context, "0.2", "--last")["last_miss"]
    assert (last["status"], last["reason"]) == ("failed", "command-changed")
    assert "exit 7;" in last["explanation"]
    (context / "Dockerfile").write_text(good)
    ran = program.build(context).ok()
    assert (ran.executed, image(ran)) == ([], earlier)


def test_two_dockerfiles_share_equal_steps(built: Built) -> None:
    program, context, _ = built.start("app")
    other = context / "Other"
    other.write_text(PROJECTS["app"].dockerfile.replace("AS build", "AS make").replace("--from=build", "--from=make"))
    assert program.build(context, "-f", other).ok().executed == []
    apart = program.project("FROM busybox AS x\nRUN echo a > /a\nFROM busybox\nRUN echo tools > /tools\n", name="apart")
    assert program.build(apart, "--target", "1").ok().executed == []


def test_a_base_image_of_ours(program: Program) -> None:
    """Rebuilt to the same content it hits; with other content only the RUNs above it run."""
    base = program.project("FROM busybox\nRUN echo 1 > /v\n", name="base")
    app = program.project("FROM own:1\nWORKDIR /w\nCOPY f f\nRUN cat f /v > g\n", {"f": "f"}, name="app")
    program.build(base, "-t", "own:1").ok()
    program.build(app).ok()
    (base / "Dockerfile").write_text("FROM busybox\n# the same\nRUN printf '1\\n' > /v\n")
    program.build(base, "-t", "own:1").ok()
    assert program.build(app).ok().executed == []
    (base / "Dockerfile").write_text("FROM busybox\nRUN echo 2 > /v\n")
    program.build(base, "-t", "own:1").ok()
    planned = why(program, app, "0.3")["planned"]
    assert planned["reason"] == "base-image-changed"
    assert re.search(r"own:1 \(layer 2 of 2: sha256:(\w{12}) → sha256:(?!\1)", planned["explanation"])
    assert "the first layer is the same" in planned["details"]
    assert [line[:15] for line in planned["details"][-2:]] == ["- layer sha256:", "+ layer sha256:"]
    assert program.statuses(app) == {"0.1": "hit", "0.2": "hit", "0.3": "miss"}
    assert program.build(app).ok().executed == ["0.3"]


def told(program: Program, context: Path, node: str, *options: str) -> str:
    return program.call("why", node, context, *program.base(), *options).ok().stdout


def test_a_line_put_in_is_new_and_takes_no_others_time(built: Built) -> None:
    program, context, _ = built.start("lines")
    text = (context / "Dockerfile").read_text()
    (context / "Dockerfile").write_text(text.replace("RUN echo b", "RUN echo new > /n\nRUN echo b"))
    nodes = {node["id"]: node for node in program.plan(context)["nodes"]}
    assert (nodes["0.2"]["explanation"], nodes["0.2"]["expected_seconds"]) == ("it is new here", None)
    assert nodes["0.3"]["expected_seconds"] is not None
    (context / "Dockerfile").write_text(text.replace("RUN echo b", "RUN echo new"))
    changed = next(node for node in program.plan(context)["nodes"] if node["id"] == "0.2")
    assert (changed["reason"], changed["expected_seconds"] is not None) == ("command-changed", True)


def test_the_step_whose_result_went_is_named(built: Built) -> None:
    program, context, _ = built.start("app")
    drop(program, "build.7", "unused for 30 days")
    said = told(program, context, "build.8", "--no-cache-filter", "tools")
    assert "cached: its recipe is known" in said
    drop(program, "build.8", "unused for 30 days")
    said = told(program, context, "build.8", "--target", "build")
    assert re.search(r"since build\.7 runs: its result was evicted .* ago: unused for 30 days", said)
    said = told(program, context, "build.8", "--no-cache-filter", "build")
    assert "would run: --no-cache-filter build says so" in said
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text().replace("RUN cat main.c", "# buildgraph: no-cache\nRUN cat main.c"))
    said = told(program, context, "build.8")
    assert "since build.7 runs: the comment `# buildgraph: no-cache` says so" in said
    assert "because the comment" in program.call("plan", context, *program.base()).ok().stdout


def test_a_step_that_is_not_deterministic_is_noticed(program: Program) -> None:
    text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id; mkdir /d; echo 1 > /d/same\nRUN true\n"
    context = program.project(text)
    program.build(context).ok()
    program.build(context, "--no-cache").ok()
    nodes = {node["id"]: node for node in program.plan(context)["nodes"]}
    assert nodes["0.1"]["varies"] == ["id"]
    assert nodes["0.2"]["varies"] == []
    said = told(program, context, "0.1")
    assert re.search(r"  cached: .*\n  not deterministic: .*\n    id\n  recipe key [0-9a-f]{16}…\n", said)
    assert "not deterministic: 1 path differed: id" in program.call("plan", context, *program.base()).ok().stdout
