"""The reference implementation's parser cases: files with their expected syntax tree, and files to refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.lexer import RawInstruction, lex
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.dockerfile.words import json_array, split_blanks, split_first, split_flags, split_pairs, split_quoted

CASES = Path(__file__).resolve().parents[3] / "shared" / "conformance" / "parser"
POSITIVE = sorted(path.name for path in CASES.glob("positive/*"))
NEGATIVE = sorted(path.name for path in CASES.glob("negative/*"))

present = pytest.mark.skipif(not CASES.is_dir(), reason="the conformance data stands beside the repository, not in it")
ESCAPED = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\", "\0": "\\x00"}


def read(name: str) -> Source:
    return Source.from_bytes("Dockerfile", (CASES / name / "Dockerfile").read_bytes())


def quoted(word: str) -> str:
    return '"' + "".join(ESCAPED.get(char, char) for char in word) + '"'


def arguments(raw: RawInstruction, escape: str) -> list[str]:
    match raw.keyword.lower():
        case "run" | "cmd" | "entrypoint" | "shell":
            words = json_array(raw.rest)
            return list(words) if words is not None else [raw.rest] if raw.rest else []
        case "add" | "copy" | "volume":
            words = json_array(raw.rest)
            return list(split_blanks(raw.rest) if words is None else words)
        case "from" | "expose":
            return list(split_blanks(raw.rest))
        case "env" | "label":
            pairs, legacy = split_pairs(raw.rest, raw.keyword, escape)
            return [part for pair in pairs for part in (*pair, "" if legacy else "=")]
        case "arg":
            return list(split_quoted(raw.rest, escape))
        case "healthcheck":
            kind, behind = split_first(raw.rest)
            words = json_array(behind)
            return [word for word in (kind, *((behind,) if words is None else words)) if word]
        case _:
            return [raw.rest]


def tree(raw: RawInstruction, escape: str) -> str:
    """The instruction as the cases write it: keyword, flags in brackets, quoted words."""
    parts = [raw.keyword.lower()]
    if raw.flags:
        parts.append("[" + " ".join(map(quoted, raw.flags)) + "]")
    if parts[0] == "onbuild":
        keyword, behind = split_first(raw.rest)
        flags, rest = split_flags(behind, escape)
        parts.append(tree(raw._replace(keyword=keyword, flags=flags, rest=rest), escape))
    else:
        parts += map(quoted, arguments(raw, escape))
    return "(" + " ".join(parts) + ")"


@present
@pytest.mark.parametrize("name", POSITIVE)
def test_tree_is_the_expected_one(name: str) -> None:
    lexed = lex(read(f"positive/{name}"))
    trees = [tree(raw, lexed.directives.escape) for raw in lexed.instructions]
    assert "\n".join(trees) == (CASES / "positive" / name / "result").read_text().rstrip("\n")


@present
@pytest.mark.parametrize("name", NEGATIVE)
def test_refused_with_a_place(name: str) -> None:
    source = read(f"negative/{name}")
    with pytest.raises(DockerfileError) as caught:
        parse_dockerfile(source)
    assert caught.value.span.source is source


@present
def test_all_cases_are_there() -> None:
    assert (len(POSITIVE), len(NEGATIVE)) == (33, 4)
