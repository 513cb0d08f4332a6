"""What a user says about a fleet, and what is said to one who says it wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

KEY = "ed25519:" + "A" * 43
DOCKERFILE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\nRUN echo hello\n"


def with_settings(program: Program, text: str) -> Path:
    (program.root / "buildgraph.toml").write_text(text)
    return program.project(DOCKERFILE)


@pytest.mark.parametrize("number", ["-1", "10001"])
def test_a_number_of_slots_is_one(program: Program, number: str) -> None:
    ran = program.build(program.project(DOCKERFILE), "--local-slots", number).failed(2)
    assert f"--local-slots {number}: it must be from 0 to 10000" in ran.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[remote]\nurl = "grpc://h"\ntrusted-workers = ["W1"]\n', "'W1' is no worker's fingerprint"),
        ('[remote]\nurl = "grpc://h"\ntrusted-workers = "' + KEY + '"\n', "remote.trusted-workers is no list"),
        ("local-slots = -1\n", "local-slots must be from 0 to"),
        ('local-slots = "two"\n', "local-slots is not a number"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(program: Program, text: str, message: str) -> None:
    context = with_settings(program, text)
    assert message in program.build(context, "--no-remote", cwd=program.root).failed(2).stderr


def test_settings_that_can_be_meant_are_taken(program: Program) -> None:
    context = with_settings(program, f'local-slots = 1\n[remote]\nurl = "grpc://h"\ntrusted-workers = ["{KEY}"]\n')
    program.build(context, "--no-remote", cwd=program.root).ok()


def test_without_a_fleet_and_without_slots_no_command_runs(program: Program) -> None:
    context = program.project(DOCKERFILE)
    ran = program.build(context, "--local-slots", "0").failed(5)
    assert "--local-slots 0 lets no command run on this machine" in ran.stderr
    assert "RUN echo hello" in ran.stderr, "and it is said which one"
    program.build(context, "--local-slots", "1").ok()
    assert program.build(context, "--local-slots", "0").ok().cached, "what is known needs none"


def test_slots_bound_what_runs_at_the_same_time(program: Program) -> None:
    stages = "".join(f"FROM base AS s{n}\nRUN --mount=type=cache,target=/c mkdir /c/busy && sleep 0.1 && rmdir /c/busy && touch /{n}\n" for n in range(4))
    copies = "".join(f"COPY --from=s{n} /{n} /\n" for n in range(4))
    context = program.project(f"FROM scratch AS base\nCOPY --from=busybox / /\n{stages}FROM base\n{copies}")
    program.build(context, "--local-slots", "1").ok()


def test_a_fleet_needs_a_server(program: Program) -> None:
    for arguments in ((), ("why", "abc"), ("cordon", "w1")):
        ran = program.call("fleet", *arguments).failed(2)
        assert "a fleet belongs to a server, and none is set" in ran.stderr
