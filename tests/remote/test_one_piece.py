"""Steps that come out otherwise on each machine: what two machines made of one recipe is not mixed in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeMachine

BELOW = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /version\n"
STEPS = BELOW + "RUN cp /version /copy\nRUN cat /copy > /last\n"


def test_a_result_made_from_another_machines_outcome_is_not_taken(machine: MakeMachine, tmp_path: Path) -> None:
    first, second, third = machine("a"), machine("b"), machine("c")
    first.build(first.project(STEPS)).ok()
    # The step below is published once more, by somebody who made it alone and has nothing above it.
    second.alone(second.project(BELOW)).ok()
    assert not second.build(second.project(BELOW)).ok().executed
    out = tmp_path / "out"
    ran = third.build(third.project(STEPS), "-o", f"type=local,dest={out}").ok()
    assert {(out / name).read_text() for name in ("copy", "last")} == {(out / "version").read_text()}
    assert ran.executed == ["0.2", "0.3"], "all that is known of the one outcome is used"


def test_what_fits_together_is_taken_whole(machine: MakeMachine, tmp_path: Path) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS)).ok()
    out = tmp_path / "out"
    assert not second.build(second.project(STEPS), "-o", f"type=local,dest={out}").ok().executed
    assert not second.build(second.project(STEPS)).ok().executed, "known here from now on"
    assert {(out / name).read_text() for name in ("copy", "last")} == {(out / "version").read_text()}
