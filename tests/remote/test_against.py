"""`why --against`: what a colleague's record says about a step that did not hit here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeMachine
    from program import Ran
    from team import CacheServer, Machine

DOCKERFILE = """FROM scratch AS base
COPY --from=busybox / /
FROM base
ARG MODE=fast
ARG API_TOKEN=none
COPY src /src
RUN echo $MODE > /mode
RUN sh -c "echo $API_TOKEN | wc -c > /token" && cat /src/main.c > /out
"""
FILES = {"src/main.c": "int main(void) { return 0; }\n", "src/util.h": "#pragma once\n"}


@pytest.fixture
def ann(machine: MakeMachine) -> Machine:
    return made(machine, "ann")


@pytest.fixture
def bob(machine: MakeMachine) -> Machine:
    return made(machine, "bob")


def made(machine: MakeMachine, name: str) -> Machine:
    return machine(name, env={"USER": name, "SUDO_USER": ""})


def against(machine: Machine, node: str, context: Path, what: str = "remote", *arguments: str, code: int = 0) -> Ran:
    command = ("why", node, context, "--against", what, "--remote", machine.remote, *machine.program.base(), *arguments)
    ran = machine.call(*command)
    return ran.ok() if code == 0 else ran.failed(code)


def document(machine: Machine, node: str, context: Path, what: str = "remote", *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(against(machine, node, context, what, "--format", "json", *arguments).stdout)
    return found


def test_names_the_file_that_differs_and_follows_it_up(ann: Machine, bob: Machine) -> None:
    bob.build(bob.project(DOCKERFILE, FILES)).ok()
    mine = ann.project(DOCKERFILE, {**FILES, "src/util.h": "#pragma once\n#define N 1\n", "src/new.c": "\n"})
    text = against(ann, "1.3", mine).stdout
    assert "by bob@" in text
    assert "no hit: src/util.h changed; src/new.c is new" in text
    assert "~ src/util.h (13 B → 25 B)" in text
    assert "+ src/new.c (1 B)" in text
    above = document(ann, "1.5", mine)
    assert above["hit"] is None
    assert "COPY src /src" in above["explanation"]
    assert any("util.h" in line for line in above["details"])
    assert above["against"]["made_by"].startswith("bob@")
    assert above["recipe_key"] != above["against"]["recipe_key"]


def test_says_so_if_it_hits(ann: Machine, bob: Machine, server: CacheServer) -> None:
    bob.build(bob.project(DOCKERFILE, FILES)).ok()
    mine = ann.project(DOCKERFILE, FILES)
    assert "it hits: the recipe is the same, and the remote has its result, made by bob@" in against(ann, "1.5", mine).stdout
    server.forget_blobs()
    gone = document(ann, "1.5", mine)
    assert (gone["hit"], gone["reason"]) == (None, "gone")
    assert "the recipe is the same, but the remote has no result of it" in gone["explanation"]


def test_says_that_a_step_hits_by_content(ann: Machine, bob: Machine) -> None:
    text = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\nRUN true {} \nWORKDIR /w\n"
    bob.build(bob.project(text.format("a"))).ok()
    mine = ann.project(text.format("b"))
    ann.build(mine).ok()
    found = document(ann, "1.2", mine, "remote:bob")
    assert found["hit"] == "content"
    assert found["recipe_key"] != found["against"]["recipe_key"]


def test_commands_and_variables(ann: Machine, bob: Machine) -> None:
    bob.build(bob.project(DOCKERFILE, FILES)).ok()
    mine = ann.project(DOCKERFILE.replace("> /mode", "> /modes"), FILES)
    assert "the command changed: echo $MODE > [/mode → /modes]" in against(ann, "1.4", mine).stdout
    mine = ann.project(DOCKERFILE, FILES)
    assert "the value of MODE changed: fast → slow" in against(ann, "1.4", mine, "remote", "--build-arg", "MODE=slow").stdout
    moved = ann.project(DOCKERFILE.replace("COPY src", "WORKDIR /\nRUN true\nCOPY src"), FILES)
    found = document(ann, "1.6", moved, "remote", "--build-arg", "MODE=slow")
    assert found["against"]["node"] == "1.4", "found by what it does, though it stands elsewhere now"


@pytest.mark.parametrize("theirs", ["same-secret-1", "other-secret-2"])
def test_secrets_are_not_compared_between_machines(ann: Machine, bob: Machine, theirs: str) -> None:
    """Marks are made with each store's own key, so they differ whatever the value."""
    bob.build(bob.project(DOCKERFILE, FILES), "--build-arg", f"API_TOKEN={theirs}").ok()
    secret = ("--build-arg", "API_TOKEN=same-secret-1")
    mine = ann.project(DOCKERFILE.replace("> /mode", "> /modes"), FILES)
    found = document(ann, "1.5", mine, "remote", *secret)
    text = json.dumps(found)
    assert "echo $MODE > [/mode → /modes]" in found["explanation"]
    assert "API_TOKEN changed" not in text
    assert "secret-1" not in text
    assert "secret-2" not in text
    alone = document(ann, "1.5", ann.project(DOCKERFILE, FILES), "remote", *secret)
    if theirs == "same-secret-1":
        assert alone["hit"] == "recipe"
    else:
        assert alone["reason"] == "secret-unknown"
        below = document(ann, "1.4", ann.project(DOCKERFILE, FILES), "remote", *secret)
        assert below["explanation"] == "the value of API_TOKEN cannot be compared between machines"
        assert alone["explanation"].startswith("the key of what it builds on is another, at «RUN echo $MODE > /mode»: the value of")
        assert "changed" not in alone["explanation"]


def test_a_secret_that_counts_is_never_shared(ann: Machine, bob: Machine) -> None:
    text = (
        "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n# buildgraph: secret-in-key=npm\n"
        "RUN --mount=type=secret,id=npm wc -c /run/secrets/npm > /n\n"
    )
    (bob.root / "value").write_text("hunter2-hunter2")
    secret = ("--secret", f"id=npm,src={bob.root / 'value'}")
    bob.build(bob.project(text), *secret).ok()
    found = document(ann, "1.1", ann.project(text), "remote", *secret)
    assert found["reason"] == "secret-unknown"
    assert "its value cannot be compared between machines, nor the result shared" in found["explanation"]


@pytest.mark.slow
def test_whose_build(ann: Machine, bob: Machine, machine: MakeMachine) -> None:
    bob.build(bob.project(DOCKERFILE, FILES)).ok()
    carol = made(machine, "carol")
    carol.build(carol.project(DOCKERFILE.replace("MODE=fast", "MODE=safe"), FILES)).ok()
    mine = ann.project(DOCKERFILE, FILES)
    ann.build(mine).ok()
    assert document(ann, "1.4", mine)["against"]["made_by"].startswith("carol@"), "the newest that is not one's own"
    first = document(ann, "1.4", mine, "remote:bob")
    assert first["hit"] == "recipe"
    key = first["against"]["build"]
    assert document(ann, "1.4", mine, f"remote:{key}")["against"]["build"] == key
    assert document(ann, "1.4", mine, f"remote:{key[:15]}")["against"]["build"] == key
    wrong = against(ann, "1.4", mine, "remote:bop", code=2).stderr
    assert "no build of project by bop" in wrong
    for name in ("ann@", "bob@", "carol@"):
        assert name in wrong
    assert "has no build 000000000000-00000000" in against(ann, "1.4", mine, "remote:000000000000-00000000", code=2).stderr


def test_a_failed_step_has_no_result_that_could_hit(ann: Machine, bob: Machine) -> None:
    text = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\nRUN test -e /nothing\n"
    bob.build(bob.project(text)).failed(1)
    found = document(ann, "1.1", ann.project(text))
    assert found["against"]["status"] == "failed"
    assert "it failed there, so there is no result" in found["explanation"]


def test_what_cannot_be(ann: Machine, bob: Machine, server: CacheServer) -> None:
    mine = ann.project(DOCKERFILE, FILES)
    assert "nobody has published a build there yet" in against(ann, "1.3", mine, code=2).stderr
    bob.build(bob.program.project(DOCKERFILE, FILES, name="elsewhere")).ok()
    assert "there are builds of elsewhere" in against(ann, "1.3", mine, code=2).stderr
    assert "says nothing that steps can be compared with" in against(ann, "1.3", mine, "origin:bob", code=2).stderr
    unset = ann.call("why", "1.3", mine, "--against", "remote", *ann.program.base()).failed(2)
    assert "none is set" in unset.stderr
    server.stop()
    assert "does not answer" in against(ann, "1.3", mine, code=5).stderr


@pytest.mark.slow
def test_records_of_others_are_not_believed(ann: Machine, bob: Machine, server: CacheServer) -> None:
    """Records that unpack to far more than they are, or that are no records, only lack."""
    import zlib

    from cache.store import Batch

    bob.build(bob.project(DOCKERFILE, FILES)).ok()
    rows = [(key, value) for key, value in server.store.scan("shared") if "\0preimages\0" in key or "\0sources\0" in key]
    assert rows
    mine = ann.project(DOCKERFILE, {**FILES, "src/new.c": "\n"})
    for bad in (zlib.compress(b" " * (900 << 20), 9), b"\0", zlib.compress(b'[{"operation":{"is":1,"env":7},"platform":0,"sources":0,"rootfs":0},[],"",""]')):
        server.store.commit(Batch(records=tuple(("shared", key, bad) for key, _ in rows)))
        found = document(ann, "1.3", mine)
        assert found["hit"] is None
        assert "not known" in found["explanation"] or "cannot be compared" in found["explanation"]
