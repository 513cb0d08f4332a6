"""What `cache du` and `cache prune` say where nothing is left to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from program import Program


def test_a_limit_below_the_records_says_what_stays(program: Program) -> None:
    program.build(program.project("FROM busybox\nRUN echo 1\n")).ok()
    ran = program.call("cache", "prune", "--max-used-space", "10").ok()
    again = program.call("cache", "prune", "--max-used-space", "10").ok()
    for said in (ran.stdout, again.stdout):
        assert "more; data.mdb itself stays: " in said
        assert "named images" not in said, "there are none"
    assert again.stdout.startswith("0 items went, 0 B came back\nthe limits ask for ")
    program.build(program.project("FROM busybox\nRUN echo 1\n"), "-t", "named:1").ok()
    said = program.call("cache", "prune", "--max-used-space", "10").ok().stdout
    assert "more; named images keep " in said
    assert ", data.mdb itself stays: " in said


def test_a_list_of_nothing_has_no_heading(program: Program) -> None:
    program.build(program.project("FROM busybox\nRUN echo 1\n")).ok()
    listed = program.call("cache", "du", "-v").ok().stdout
    assert "LAST USE" in listed
    none = program.call("cache", "du", "-v", "--filter", "project=no-such").ok().stdout
    assert "LAST USE" not in none
    assert "total" in none
