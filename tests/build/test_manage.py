"""Management of the cache as a user meets it: du, prune, stat, the policy of buildgraph.toml, and clear."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from test_crash import BASE, start, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

STEP = "RUN dd if=/dev/urandom of=/{name} bs=64k count=16 2>/dev/null\n"


def step(name: str) -> str:
    return STEP.format(name=name)


def du(program: Program, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(program.call("cache", "du", "--format", "json", *arguments).ok().stdout)
    return document


def groups(document: dict[str, Any]) -> dict[str, int]:
    return {group["name"]: group["bytes"] for group in document["groups"]}


def on_disk(directory: Path) -> int:
    """As the system's own du counts."""
    done = subprocess.run(["du", "-s", "--block-size=1", str(directory)], capture_output=True, check=True)
    return int(done.stdout.split()[0])


@pytest.fixture
def shop(program: Program) -> Program:
    """Two projects that share a base; one has a named image, a cache mount and a step of its own."""
    one = program.project(BASE + step("one") + "RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/x bs=64k count=16\n", name="one")
    two = program.project(BASE + step("two") + "COPY f /f\n", {"f": os.urandom(300_000)}, name="two")
    program.build(one, "-t", "one:1").ok()
    program.build(two).ok()
    return program


# du


def test_du_agrees_with_the_disk(shop: Program) -> None:
    for _ in range(2):
        document = du(shop)
        real = on_disk(shop.store)
        assert abs(document["total"] - real) < 0.02 * real
        parts = sum(groups(document).values()) + document["shared"]
        parts += sum(document.get(name, 0) for name in ("record", "unused", "scratch", "other", "reusable"))
        assert parts == document["total"]
        shop.call("cache", "prune", "--filter", "project=two").ok()


def test_du_counts_what_is_shared_once_and_says_so(shop: Program) -> None:
    by_kind = du(shop)
    assert groups(by_kind)["step"] > 2 << 20
    assert groups(by_kind)["mount"] >= 1 << 20
    by_project = du(shop, "--by", "project")
    mine = groups(by_project)
    assert mine[str(shop.root / "one")] == pytest.approx(1 << 20, rel=0.05)
    assert mine[str(shop.root / "two")] == pytest.approx((1 << 20) + 300_000, rel=0.05)
    assert by_project["shared"] > 1 << 20, "the base"
    by_image = groups(du(shop, "--by", "image"))
    assert by_image["docker.io/library/one:1"] > 2 << 20
    assert by_project["total"] == pytest.approx(by_kind["total"], rel=0.01)
    text = shop.call("cache", "du", "-v").ok().stdout
    assert "counted once" in text
    assert "COPY f /f" in text
    items = [line.split() for line in text[text.index("SIZE  KIND") :].splitlines()[1:]]
    units = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    sizes = [float(words[0]) * units[words[1]] for words in items]
    assert sizes == sorted(sizes, reverse=True)


# prune


def test_prune_keeps_what_a_named_image_needs(shop: Program) -> None:
    would = shop.call("cache", "prune", "--dry-run").ok().stdout
    assert "no named image needs it" in would
    assert "COPY f /f" in would
    assert "would go" in would
    before = on_disk(shop.store)
    said = shop.call("cache", "prune", "-f", "--all").ok().stdout
    assert "came back" in said
    assert "image rm" in said, "--all does not take images by name, and says so"
    assert before - on_disk(shop.store) > 2 << 20
    assert shop.build(shop.root / "one", "-t", "one:1").ok().executed == []
    assert shop.call("image", "export", "one:1", "-o", f"type=oci,dest={shop.root}/one.tar").ok()
    assert len(shop.build(shop.root / "two").ok().executed) == 2
    shop.call("image", "rm", "one:1").ok()
    shop.call("cache", "prune").ok()
    left = du(shop)
    assert groups(left) == {}
    assert on_disk(shop.store) < 1 << 20
    assert "all is well" in shop.call("cache", "verify").ok().stdout


def test_prune_by_project_kind_and_age(shop: Program) -> None:
    assert "0 items" in shop.call("cache", "prune", "--filter", "until=1h").ok().stdout
    assert "0 items" in shop.call("cache", "prune", "--filter", "unused-for=7d").ok().stdout
    shop.call("cache", "prune", "--filter", "kind=mount").ok()
    assert "mount" not in groups(du(shop))
    shop.call("cache", "prune", "--filter", "project=two").ok()
    left = groups(du(shop, "--by", "project"))
    assert left[str(shop.root / "two")] == 0, "but for the base, which the named image of the other project needs"
    assert left[str(shop.root / "one")] > 1 << 20
    assert len(shop.build(shop.root / "two").ok().executed) == 2


def test_prune_to_a_size_takes_what_is_worth_least(program: Program) -> None:
    slow = program.project(BASE + "RUN sleep 3; dd if=/dev/urandom of=/s bs=64k count=16 2>/dev/null\n", name="slow")
    quick = program.project(BASE + "RUN sleep 0.5; dd if=/dev/urandom of=/q bs=64k count=16 2>/dev/null\n", name="quick")
    program.build(slow).ok()
    program.build(quick).ok()
    limit = du(program)["used"] - 4096
    said = program.call("cache", "prune", "--max-used-space", str(limit)).ok().stdout
    assert "1 item went" in said
    assert "uses no more than" in said
    assert du(program)["used"] <= limit + 8192
    node = next(node for node in program.plan(slow)["nodes"] if node["id"] == "1.1")
    assert (node["status"], node["if_same"]) == ("depends", "hit"), "each result goes by itself: what went is below it"
    assert "1.1" in program.build(slow).ok().cached
    assert "0 items" in program.call("cache", "prune", "--keep-storage", "1t", "--min-free-space", "1").ok().stdout


def test_prune_beside_a_running_build(program: Program) -> None:
    program.build(program.project(BASE + step("old"), name="old")).ok()
    marker = f"33{os.getpid()}"
    project = program.project(
        BASE + step("old") + f"RUN --mount=type=cache,target=/c touch /c/x && echo x > /x && while [ ! -e /c/go ]; do sleep 0.1; done # {marker}\n"
    )
    process = start(program, project, "-t", "late:1")
    wait_for(lambda: list(program.store.glob("mounts/*/x")))
    said = program.call("cache", "prune").ok().stdout
    assert f"process {process.pid}" in said, "what waits for which build"
    assert "a step is using it" in said
    mount = next(iter(program.store.glob("mounts/*/x"))).parent
    (mount / "go").touch()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "all is well" in program.call("cache", "verify").ok().stdout
    program.call("image", "export", "late:1", "-o", f"type=oci,dest={program.root}/late.tar").ok()
    program.call("cache", "prune").ok()
    assert not list(program.store.glob("mounts/*"))
    assert "all is well" in program.call("cache", "verify").ok().stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--filter", "colour=red"], "not a filter"),
        (["--filter", "until=soon"], "no age"),
        (["--filter", "kind=stone"], "no such kind"),
        (["--filter", "type=frontend"], "exec.cachemount (mount)"),
        (["--filter", "type="], "no value"),
        (["--filter", ""], "not a filter"),
        (["--max-used-space", "much"], "no size"),
        (["--max-used-space", ""], "no size"),
        (["--min-free-space", ""], "no size"),
        (["--keep-storage", ""], "--keep-storage: '' is no size"),
        (["--max-used-space", "1g", "--keep-storage", "1g"], "two words for one limit"),
        (["--colour", "red"], "unrecognized"),
    ],
)
def test_what_prune_does_not_understand(program: Program, arguments: list[str], words: str) -> None:
    said = program.call("cache", "prune", *arguments).failed(2).stderr
    assert words in said
    assert "buildgraph cache prune --help" in said
    assert not program.store.exists()


def test_filters_by_dockers_types(shop: Program) -> None:
    everything = du(shop, "-v")["items"]
    for types, kinds in (("exec.cachemount", {"mount"}), ("regular", {"step"}), ("mount,source.git.checkout", {"mount"})):
        found = du(shop, "-v", "--filter", f"type={types}")
        wanted = {item["key"] for item in everything if item["kind"] in kinds}
        assert wanted
        assert {item["key"] for item in found["items"]} == wanted
        assert found["total"] == sum(groups(found).values()) + found["shared"]
    assert "1 item went" in shop.call("cache", "prune", "--filter", "type=exec.cachemount").ok().stdout
    assert "mount" not in groups(du(shop))


def test_each_item_that_goes_says_by_which_rule(shop: Program) -> None:
    shop.call("image", "rm", "one:1").ok()
    would = json.loads(shop.call("cache", "prune", "--dry-run", "--format", "json").ok().stdout)
    assert would["dry_run"]
    rules = {item["kind"]: item["rule"] for item in would["items"]}
    assert rules["step"] == "no named image needs it"
    assert rules["mount"] == "cache mounts belong to no image"
    lines = shop.call("cache", "prune", "--dry-run").ok().stdout.splitlines()
    rows = [line for line in lines if line.startswith(("step ", "mount "))]
    assert len(rows) == sum(item["kind"] in ("step", "mount") for item in would["items"])
    assert all(line.endswith(tuple(rules.values())) for line in rows)
    limited = ["cache", "prune", "--max-used-space", "3mb", "--filter", "unused-for=0s", "--format", "json"]
    before = on_disk(shop.store)
    did = json.loads(shop.call(*limited).ok().stdout)
    assert did["items"]
    for item in did["items"]:
        assert item["rule"] == "pruned: not used for 0s; least worth, so that the store uses no more than 3mb (--max-used-space)"
    assert did["freed"] == pytest.approx(before - on_disk(shop.store), rel=0.1)
    assert did["used"] <= 3 << 20


def test_a_store_that_does_not_exist_is_not_made(program: Program) -> None:
    for arguments in (["du"], ["du", "-v"], ["prune"], ["prune", "--dry-run"], ["verify"], ["verify", "--repair"], ["stat"]):
        assert f"there is no store at {program.store} yet" in program.call("cache", *arguments).ok().stdout
    assert du(program, "--by", "project")["total"] == 0
    assert json.loads(program.call("cache", "prune", "--format", "json").ok().stdout)["items"] == []
    assert json.loads(program.call("cache", "stat", "--format", "json").ok().stdout)["rows"] == []
    assert not program.store.exists()


# the policy


def test_a_policy_that_is_wrong_is_said(program: Program) -> None:
    cases = {
        "gc = 1": "gc is no table", "[gc]\nsize = 1": "unknown key gc.size", "[gc]\nenabled = 1": "true or false",
        '[gc]\nmax-used-space = "x"': "no size", '[gc]\nunused-for = "x"': "no age",
        "[gc]\nmax-used-space = 50": 'max-used-space = "50GB"', "[gc]\nunused-for = 30": 'unused-for = "30d"',
    }  # fmt: skip
    for text, words in cases.items():
        (program.root / "buildgraph.toml").write_text(text)
        environment = {**program.env}
        environment.pop("BUILDGRAPH_STORE")
        done = subprocess.run(
            program.command("cache", "du"), cwd=program.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert words in done.stderr


def test_the_policy_is_kept_after_a_build(program: Program) -> None:
    (program.root / "buildgraph.toml").write_text('[gc]\nmax-used-space = "6MiB"\n')
    said = []
    for number in range(8):
        project = program.project(BASE + step(f"n{number}"), name=f"p{number}")
        ran = program.call("build", project, *program.base(), "--progress", "plain", cwd=program.root).ok()
        said.append("cleaned up the cache" in ran.stderr)
    assert not any(said[:3])
    assert any(said[3:])
    assert du(program)["used"] <= 7 << 20
    (program.root / "buildgraph.toml").write_text('[gc]\nmax-used-space = "1"\nenabled = false\n')
    ran = program.call("build", program.project(BASE + step("last"), name="last"), *program.base(), "--progress", "plain", cwd=program.root)
    assert "cleaned up" not in ran.ok().stderr
    assert "all is well" in program.call("cache", "verify").ok().stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's extracted layers can go, which makes room enough")
def test_the_policy_says_what_it_cannot_do(program: Program) -> None:
    """A named image and what was just built are more than the limit: both stay, and that is said."""
    policy = program.root / "buildgraph.toml"
    policy.write_text("[gc]\nenabled = false\n")
    large = STEP.replace("count=16", "count=160").format(name="named")
    program.call("build", program.project(BASE + large, name="named"), *program.base(), "-t", "named:1", cwd=program.root).ok()
    limit = f"{du(program)['used'] // 1024 + 512}k"
    policy.write_text(f'[gc]\nmax-used-space = "{limit}"\n')
    time.sleep(1.1)  # uses are counted in whole seconds
    other = program.project(BASE + step("other"), name="other")
    ran = program.call("build", other, *program.base(), "--progress", "plain", cwd=program.root).ok()
    assert f"no more than {limit} (max-used-space in buildgraph.toml) another" in ran.stderr
    assert "named images keep" in ran.stderr
    assert program.statuses(other)["1.1"] == "hit", "what was just made is not thrown away"
    policy.write_text('[gc]\nmax-used-space = "1mb"\n')
    alone = program.project(BASE + step("alone"), name="alone")
    ran = program.call("build", alone, *program.base(), "--progress", "plain", cwd=program.root).ok()
    assert "this build alone uses" in ran.stderr
    assert "no more than 1mb (max-used-space in buildgraph.toml)" in ran.stderr


# stat, clear


def test_stat_counts_hits_by_day_and_project(shop: Program) -> None:
    shop.build(shop.root / "one").ok()
    document = json.loads(shop.call("cache", "stat", "--format", "json").ok().stdout)
    total = document["total"]
    assert (total["builds"], total["steps"]) == (3, 9)
    assert total["hits"] == 4, "the base in the second build, all in the third"
    assert total["hit_rate"] == pytest.approx(4 / 9, abs=0.001)
    assert total["ran"] == 5
    assert [row["name"] for row in document["rows"]] == [time.strftime("%Y-%m-%d")]
    by_project = json.loads(shop.call("cache", "stat", "--by", "project", "--format", "json").ok().stdout)
    assert {row["name"]: row["builds"] for row in by_project["rows"]} == {str(shop.root / "one"): 2, str(shop.root / "two"): 1}
    assert "44 %" in shop.call("cache", "stat").ok().stdout


def test_clear_leaves_nothing(shop: Program) -> None:
    shop.call("cache", "clear").ok()
    assert list(shop.store.iterdir()) == []
    assert shop.build(shop.root / "one").ok().executed
