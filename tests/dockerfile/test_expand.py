"""Expansion beyond the recorded rows."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dockerfile.expand import ExpansionError, expand, expand_raw, expand_words

VALUES = {"A": "a", "E": "", "S": "x y", "P": "/usr/lib/lib.so", "L": "one\ntwo"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$A$A", "aa"),
        ("${A}b $", "ab $"),
        ("${X:-'$A'\"$A\"}", "$Aa"),
        ("${P##*/}", "lib.so"),
        ("${P%/*}", "/usr/lib"),
        ("${P%%/*}", ""),
        ("${P#*/}", "usr/lib/lib.so"),
        ("${P//lib/L}", "/usr/L/L.so"),
        ("${P//l?b/L}", "/usr/L/L.so"),
        ("${P/*/L}", "L"),
        ("${P//*/L}", "L"),
        ("${P//\\//\\$}", "\\$usr\\$lib\\$lib.so"),
        ("${L%?two}", "one\ntwo"),
        ("${X}${X-}${E-b}${E:-b}", "b"),
        ("C:\\\\x", "C:\\x"),
    ],
)
def test_expand(word: str, expected: str) -> None:
    assert expand(word, VALUES.get) == expected


def test_escape_token_can_be_a_backquote() -> None:
    assert expand('C:\\$A `$A "`$A `x"', VALUES.get, "`") == "C:\\a $A $A `x"


def test_words_are_cut_after_expansion_outside_quotes() -> None:
    assert expand_words("$S \"$S\" '' $E a\\ b", VALUES.get) == ["x", "y", "x y", "a b"]


def test_heredoc_bodies_keep_quotes_and_lose_escapes() -> None:
    assert expand_raw("\"$A\" '$A' \\$A \\\\ \\n\n", VALUES.get) == "\"a\" 'a' $A \\ n\n"


def test_names_are_reported() -> None:
    seen: list[tuple[str, bool]] = []
    expand("$A ${X:-$E} '$S'", VALUES.get, seen=lambda name, found: seen.append((name, found)))
    assert sorted(seen) == [("A", True), ("E", True), ("X", False)]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${X:?}", "X: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${X?no $A}", "X: no a"),
        ("${A^}", "unsupported modifier ^"),
        ("${A:0:3}", "unsupported modifier :0"),
        ("${A:=b}", "unsupported modifier :="),
        ("${A#\\x}", "pattern"),
        ("${A", "} is missing"),
        ("${A/b", "/ is missing"),
        ("'a", "single quote is not closed"),
        ("${A:-" * 60, "within each other"),
    ],
)
def test_refused(word: str, message: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(word, VALUES.get)
    assert message in str(caught.value)


def test_growth_is_bounded() -> None:
    with pytest.raises(ExpansionError, match="far more"):
        expand("$B$B", {"B": "b" * 600_000}.get)
    with pytest.raises(ExpansionError, match="far more"):
        expand("${B//b/$B}", {"B": "b" * 2000}.get)


def test_patterns_do_not_run_away() -> None:
    assert expand("${B##" + "*b" * 20 + "c}", {"B": "b" * 2000}.get) == "b" * 2000


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="$AXSE{}:-+?#%/'\"\\` *b", max_size=30))
def test_any_text_expands_or_is_refused(text: str) -> None:
    for escape in ("\\", "`"):
        for function in (expand, expand_words, expand_raw):
            with contextlib.suppress(ExpansionError):
                function(text, VALUES.get, escape)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_quoted_text_is_itself(text: str) -> None:
    assert expand("'" + text.replace("'", "'\\''") + "'", VALUES.get) == text
