"""Ignore rules and globs against slow, obvious implementations of the same rules."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.ignore import parse_ignore_file
from worker.globs import compile_glob, has_wildcard
from worker.ignore import IgnoreRules


def slow_match(pattern: str, path: str) -> bool:
    """The reference implementation's translation, followed by trying everything."""
    if pattern.startswith("**") and not set(pattern[2:]) & set("*?[]\\"):
        suffix = pattern[2:]
        return path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])

    @cache
    def match(p: int, s: int) -> bool:
        if p == len(pattern):
            return s == len(path)
        if pattern.startswith("**", p):
            p += 3 if pattern.startswith("/", p + 2) else 2
            if p == len(pattern):
                return True
            return match(p, s) or any(path[end] == "/" and match(p, end + 1) for end in range(s, len(path)))
        if pattern[p] == "*":
            return match(p + 1, s) or (s < len(path) and path[s] != "/" and match(p, s + 1))
        if s == len(path):
            return False
        if pattern[p] == "?":
            return path[s] != "/" and match(p + 1, s + 1)
        return path[s] == pattern[p] and match(p + 1, s + 1)

    return match(0, 0)


def slow_ignored(patterns: list[str], path: str) -> bool:
    names = path.split("/")
    ancestors = ["/".join(names[:count]) for count in range(1, len(names) + 1)]
    ignored = False
    for pattern in patterns:
        exception = pattern.startswith("!")
        if any(slow_match(pattern.removeprefix("!"), ancestor) for ancestor in ancestors):
            ignored = not exception
    return ignored


COMPONENT = st.text(alphabet="ab*?", min_size=1, max_size=4)
PATTERN = st.builds(
    "{}{}".format,
    st.sampled_from(["", "", "!"]),
    st.lists(COMPONENT | st.just("**"), min_size=1, max_size=4).map("/".join),
)
PATH = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@settings(deadline=None, max_examples=400)
@given(st.lists(PATTERN, max_size=4), PATH)
def test_ignored_as_the_slow_way(patterns: list[str], path: str) -> None:
    try:
        rules = IgnoreRules.from_patterns(patterns)
    except ValueError:
        assert "**" in "".join(patterns)
        return
    assert rules.ignored(path) is slow_ignored(patterns, path)


@settings(deadline=None, max_examples=150)
@given(st.lists(PATTERN, max_size=4), PATH, PATH)
def test_what_is_not_walked_holds_no_exception(patterns: list[str], directory: str, below: str) -> None:
    try:
        rules = IgnoreRules.from_patterns(patterns)
    except ValueError:
        return
    if rules.ignored(directory) and not rules.may_contain_exceptions(directory):
        assert rules.ignored(f"{directory}/{below}")


@pytest.mark.parametrize(
    ("patterns", "directory", "expected"),
    [
        (["**", "!src"], "node_modules", False),
        (["**", "!src/a"], "src", True),
        (["**", "!src/a"], "src/b", False),
        (["**", "!s*/a/*.c"], "sx/a", True),
        (["**", "!**/keep"], "any/where", True),
        (["!a/b", "a"], "a", False),
        (["a"], "a", False),
        (["a", "!a/b", "a/b"], "a/b", False),
        (["*", "!a/**/b"], "a/x/y", True),
        (["*", "!a/**/b"], "c", False),
    ],
)
def test_which_directories_must_be_walked(patterns: list[str], directory: str, expected: bool) -> None:
    rules = IgnoreRules.from_patterns(patterns)
    assert rules.ignored(directory)
    assert rules.may_contain_exceptions(directory) is expected


def test_file_format() -> None:
    rules = parse_ignore_file("\ufeff# comment\n /a/./b/../c/ \r\n\n! /a/c/keep\n #x\n//d\n")
    assert rules.digest_input() == "a/c\n!a/c/keep\n#x\nd"
    assert [rules.ignored(path) for path in ("a/c", "a/c/x", "a/c/keep/y", "#x", "d/e", "a")] == [
        True, True, False, True, True, False,
    ]  # fmt: skip
    assert not parse_ignore_file("")
    assert not parse_ignore_file("").ignored("a")


@pytest.mark.parametrize("line", ["!", "a[", "[]a]", "[a-]", "[-a]", "a\\", "[^]", "a" * 5000, "**a" * 50])
def test_malformed_lines_are_refused_with_their_place(line: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_ignore_file(f"ok\n{line}\n", "app.dockerignore")
    assert str(caught.value).startswith("app.dockerignore:2:1:")
    with pytest.raises(ValueError):
        IgnoreRules.from_patterns([line])


@pytest.mark.alone
def test_hostile_patterns_take_no_time() -> None:
    path = "/".join(["a" * 250] * 16)
    started = time.process_time()
    for pattern in ("*a" * 60 + "b", "**/" + "*a*/**/" * 8 + "b", "**/a*/" * 10 + "b", "?*" * 100 + "/**/x"):
        assert not IgnoreRules.from_patterns([pattern]).ignored(path)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.txt", ["a.txt", ".txt"], ["a/b.txt", "a.txt2", "xtxt"]),
        ("a/*/c", ["a/b/c", "a//c"], ["a/c", "a/b/b/c"]),
        ("a?c", ["abc", "aéc"], ["ac", "a/c"]),
        ("[a-c][^x]", ["ay", "c^"], ["dy", "ax", "a/"]),
        ("[]-a]", [], []),
        ("[\\]\\-]", ["]", "-"], ["\\"]),
        ("[z-a]", [], ["z", "a", ""]),
        ("\\*\\[", ["*["], ["a["]),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("*a*b*", ["ab", "xaxbx", "aab"], ["ba", "a/b"]),
        ("[!a]", ["!", "a"], ["b"]),
        ("a\nb", ["a\nb"], ["a"]),
    ],
)
def test_globs(pattern: str, matching: list[str], other: list[str]) -> None:
    if not matching and not other:
        with pytest.raises(ValueError):
            compile_glob(pattern)
        return
    matches = compile_glob(pattern)
    assert [path for path in [*matching, *other] if matches(path)] == matching


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="ab/*?[]^-\\é", max_size=12), st.text(alphabet="ab/*[]^-\\é", max_size=8))
def test_any_glob_compiles_or_is_refused(pattern: str, path: str) -> None:
    try:
        matches = compile_glob(pattern)
    except ValueError:
        return
    if not has_wildcard(pattern) and "\\" not in pattern:
        assert matches(path) is (pattern == path)
    else:
        matches(path)


def test_has_wildcard() -> None:
    assert [has_wildcard(p) for p in ("a*", "a?", "[a]", "a\\*", "\\\\*", "a]")] == [
        True,
        True,
        True,
        False,
        True,
        False,
    ]
