"""How shell scripts are read for rules."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.checks.shell import commands


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("a b && c || d; e & f", [["a", "b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a 'b && c' \"d | e\" f\\ g", [["a", "'b && c'", '"d | e"', "f\\ g"]]),
        ("a # b && c\nd", [["a"], ["d"]]),
        ("a#b c", [["a#b", "c"]]),
        ("X=1 Y='a b' env-is-not-special", [["env-is-not-special"]]),
        ("if a; then b; else c; fi", [["a"], ["b"], ["c"], ["fi"]]),
        ("a $(b | c && d) e", [["a", "$(b | c && d)", "e"]]),
        ("a > b 2>&1 && c &>d", [["a", ">", "b", "2>&1"], ["c", "&>d"]]),
        ("(a && b) | c", [["a"], ["b"], ["c"]]),
        ("case $x in a|b) c;; d | e) f | g;; esac; h", [["c"], ["f"], ["g"], ["esac"], ["h"]]),
        ('a `b | c` "`d | e`"', [["a", "`b | c`", '"`d | e`"']]),
        ("a 'open", [["a", "'open"]]),
        ("", []),
    ],
)
def test_commands(script: str, words: list[list[str]]) -> None:
    assert [list(command.words) for command in commands(script)] == words


def test_pipes_and_subshells() -> None:
    assert [(each.words[0], each.piped, each.depth) for each in commands("a | b |& c || (d; (e)) && f")] == [
        ("a", True, 0), ("b", True, 0), ("c", False, 0), ("d", False, 1), ("e", False, 2), ("f", False, 0),
    ]  # fmt: skip


@given(st.text(alphabet="ab |&;()<>$`'\"\\#\n{}=", max_size=60))
def test_any_text_is_read(script: str) -> None:
    for command in commands(script):
        assert command.words
        assert all(word in script for word in command.words)


@pytest.mark.parametrize("piece", ["$(", "`", '"', "$((", "'", "(", "\\", "$(a (", "<("])
def test_reading_a_hostile_script_takes_no_more_than_linear_time(piece: str) -> None:
    began = time.process_time()
    commands(piece * 100_000)
    assert time.process_time() - began < 10, "the slowest takes 0.4 s; if each piece looked at all others, hours"
