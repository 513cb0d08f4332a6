"""How lines become instructions: the traps that real files hold."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.lexer import Lexed, lex
from compiler.dockerfile.source import Source


def lexed(text: str | bytes) -> Lexed:
    data = text if isinstance(text, bytes) else text.encode()
    return lex(Source.from_bytes("Dockerfile", data))


def texts(text: str | bytes) -> list[str]:
    return [raw.text for raw in lexed(text).instructions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN a \\\n# comment\n  # indented\n && b\n", ["RUN a  && b"]),
        ("RUN a \\  \t\n b\n", ["RUN a  b"]),
        ("RUN a \\\n\n   \n b\n", ["RUN a  b"]),
        ("# comment \\\nRUN a\n", ["RUN a"]),
        ("RUN a \\\r\n b\r\nRUN c\r\n", ["RUN a  b", "RUN c"]),
        ("RUN a\\\\\nRUN b\n", ["RUN a\\\\", "RUN b"]),
        ("RUN a\\\\\\\nRUN b\n", ["RUN a\\\\\\", "RUN b"]),
        ("RUN a\u2028b\x0bc\x85d\n", ["RUN a\u2028b\x0bc\x85d"]),
        (b"\xef\xbb\xbfRUN a\n", ["RUN a"]),
        ("RUN a", ["RUN a"]),
        ("\tRUN a\n", ["RUN a"]),
        ("RUN a \\", ["RUN a"]),
        ("\u00a0RUN a\u00a0\n", ["RUN a"]),
        ("RUN # no comment\n", ["RUN # no comment"]),
        ("# escape=`\nRUN a `\n b\\\nRUN c\n", ["RUN a  b\\", "RUN c"]),
        ("\n# escape=`\nRUN a \\\n b\n", ["RUN a  b"]),
        ("# unknown=x\n# escape=`\nRUN a \\\n b\n", ["RUN a  b"]),
        ("#!/usr/bin/docker\n# escape=`\nRUN a \\\n b\n", ["RUN a  b"]),
    ],
)
def test_lines_are_joined(text: str | bytes, expected: list[str]) -> None:
    assert texts(text) == expected


def test_bytes_that_are_not_utf8_survive() -> None:
    (text,) = texts(b"RUN echo \xff\n")
    assert text.encode("utf-8", "surrogateescape") == b"RUN echo \xff"


def test_directives() -> None:
    directives = lexed("# Syntax = docker/dockerfile:1 \n#check=skip=all\n# escape=`\nFROM a\n").directives
    assert directives == ("docker/dockerfile:1", "`", "skip=all")
    assert lexed("#!/bin/x\n# syntax=a/b\nFROM a\n").directives.syntax == "a/b"


@pytest.mark.parametrize("text", ["# escape=`\n# escape=\\\nFROM a", "# escape=x\nFROM a"])
def test_bad_directives_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match="escape"):
        lexed(text)


def test_comments_above_an_instruction_are_kept_directives_are_not() -> None:
    lines = "# check=skip=all\n# licence\n#\n# build the binary\n#check=skip=A\nFROM a\nRUN b \\\n# inner\n c\nRUN d\n"
    assert [raw.comments for raw in lexed(lines).instructions] == [("build the binary", "check=skip=A"), (), ()]


def test_empty_continuation_is_found_where_it_stands() -> None:
    (finding,) = lexed("FROM a\nRUN b \\\n\n c\nRUN d\n").findings
    assert (finding.rule, finding.span.first_line) == ("NoEmptyContinuation", 3)


def test_span_covers_the_written_lines() -> None:
    first, second = lexed("  RUN a \\\n# x\n   b  \n\nRUN cat <<E\nbody\nE\n").instructions
    assert first.span[1:5] == (1, 3, 3, 4)
    assert second.span[1:5] == (5, 1, 7, 1)


def test_long_lines() -> None:
    assert len(texts("RUN " + "a" * 65531)[0]) == 65535
    for line in ("RUN " + "a" * 65532, "RUN " + "é" * 32766):
        with pytest.raises(DockerfileError, match="65535 bytes"):
            lexed(line)


def heredocs(text: str) -> list[tuple[str, str, bool, bool, int]]:
    raw, *_ = lexed(text).instructions
    return [(h.name, h.content, h.expand, h.chomp, h.fd) for h in raw.heredocs]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN <<EOF\na\n# b\n\n c \\\nEOF\n", [("EOF", "a\n# b\n\n c \\\n", True, False, 0)]),
        ("RUN <<-EOF\n\t\ta\n\tb\n\tEOF\n", [("EOF", "a\nb\n", True, True, 0)]),
        ("COPY <<A <<'B' /x\n1\nA\n2\nB\n", [("A", "1\n", True, False, 0), ("B", "2\n", False, False, 0)]),
        ("COPY <<A <<B /x\nB\nA\nA\nB\n", [("A", "B\n", True, False, 0), ("B", "A\n", True, False, 0)]),
        ('RUN 3<<E"O"F cat\nEOF', [("EOF", "", False, False, 3)]),
        ("RUN <<eo\\'f\na\neo'f\n", [("eo'f", "a\n", True, False, 0)]),
        ("RUN cat <<$EOF\na\n$EOF\n", [("$EOF", "a\n", True, False, 0)]),
        ("ONBUILD RUN <<EOF\na\nEOF\n", [("EOF", "a\n", True, False, 0)]),
        ("RUN <<EOF\r\na\r\nEOF\r\n", [("EOF", "a\r\n", True, False, 0)]),
        ("RUN cat << EOF\na\nEOF\n", [("EOF", "a\n", True, False, 0)]),
        ("RUN cat \\\n <<EOF\na\nEOF\n", [("EOF", "a\n", True, False, 0)]),
        # none of these announces one
        ("RUN echo $((1 << 3))\nRUN b\n", []),
        ("RUN a << b\n", []),
        ("RUN cat <<''\n", []),
        ("RUN cat <<<word\n", []),
        ('RUN "<<EOF"\n', []),
        ("RUN '<<EOF'\n", []),
        ("RUN a\\<<EOF\n", []),
        ('RUN ["<<EOF"]\n', []),
        ("RUN it's <<EOF\n", []),
        ("CMD cat <<EOF\n", []),
        ("ENV a=<<EOF\n", []),
    ],
)
def test_heredocs(text: str, expected: list[tuple[str, str, bool, bool, int]]) -> None:
    assert heredocs(text) == expected


def test_unterminated_heredoc_points_at_its_name() -> None:
    with pytest.raises(DockerfileError, match="no line says just EOF") as caught:
        lexed("FROM a\nRUN cat <<EOF\nx\n EOF\n")
    assert (caught.value.span.first_line, caught.value.span.first_column) == (2, 11)


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        ("COPY --from=a --link b c", ("--from=a", "--link"), "b c"),
        ("COPY --chown=a\\ b -- --x y", ("--chown=a b",), "--x y"),
        ("RUN --mount='type=bind,target=\"a b\"' c", ('--mount=type=bind,target="a b"',), "c"),
        ("RUN --mount=a \\\n  --mount=b\tc", ("--mount=a", "--mount=b"), "c"),
        ("RUN - --x", (), "- --x"),
        ("RUN --x", ("--x",), ""),
    ],
)
def test_flags(text: str, flags: tuple[str, ...], rest: str) -> None:
    (raw,) = lexed(text).instructions
    assert (raw.flags, raw.rest) == (flags, rest)


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="RUNCOPY<E'\"\\`# \t\r\n$-[]{}é\udcff", max_size=60))
def test_any_text_is_cut_or_refused(text: str) -> None:
    try:
        instructions = lex(Source("Dockerfile", text)).instructions
    except DockerfileError:
        return
    spans = [raw.span for raw in instructions]
    assert all(one.last_line < other.first_line for one, other in pairwise(spans))
