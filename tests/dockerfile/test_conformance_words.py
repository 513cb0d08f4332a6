"""The reference implementation's rows for expansion, word splitting and ignore patterns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compiler.dockerfile.expand import ExpansionError, expand, expand_words
from worker.ignore import IgnoreRules

CASES = Path(__file__).resolve().parents[3] / "shared" / "conformance"
present = pytest.mark.skipif(not CASES.is_dir(), reason="the conformance data stands beside the repository, not in it")


def lines(name: str) -> list[str]:
    path = CASES / name
    return path.read_text().splitlines() if path.exists() else []


def objects(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(name) if line]


def unix_rows() -> list[tuple[str, str]]:
    rows = [line.split("|") for line in lines("shell/envVarTest") if line.strip() and not line.startswith("#")]
    return [(row[1].strip(), row[2].strip()) for row in rows if row[0].strip() in ("A", "U")]


def word_rows() -> list[tuple[dict[str, str], str, str]]:
    rows = []
    environment: dict[str, str] = {}
    for line in lines("shell/wordsTest"):
        if line.startswith("ENV "):
            name, _, value = line[4:].partition("=")
            environment = environment | {name: value}
        elif line and not line.startswith("#"):
            text, _, expected = line.partition("|")
            rows.append((environment, text.strip(), expected.lstrip()))
    return rows


ENVIRONMENT = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}


@present
@pytest.mark.parametrize(("text", "expected"), unix_rows())
def test_expand(text: str, expected: str) -> None:
    if expected == "error":
        with pytest.raises(ExpansionError):
            expand(text, ENVIRONMENT.get)
    else:
        assert expand(text, ENVIRONMENT.get) == expected


@present
@pytest.mark.parametrize(("environment", "text", "expected"), word_rows())
def test_expand_words(environment: dict[str, str], text: str, expected: str) -> None:
    if expected == "error":
        with pytest.raises(ExpansionError):
            expand_words(text, environment.get)
    else:
        assert expand_words(text, environment.get) == expected.split(",")


@present
@pytest.mark.parametrize("row", objects("shell/expansion.jsonl"), ids=lambda row: row["input"])
def test_modifiers(row: dict[str, Any]) -> None:
    if row.get("error"):
        with pytest.raises(ExpansionError):
            expand(row["input"], row["env"].get)
    else:
        assert expand(row["input"], row["env"].get) == row["expected"]


@present
@pytest.mark.parametrize(
    "row", objects("dockerignore/matches.jsonl"), ids=lambda row: f"{row['patterns']} {row['path']}"
)
def test_ignored(row: dict[str, Any]) -> None:
    assert IgnoreRules.from_patterns(row["patterns"]).ignored(row["path"]) is row["ignored"]


@present
def test_all_rows_are_there() -> None:
    found = [len(unix_rows()), len(word_rows()), len(objects("shell/expansion.jsonl"))]
    assert found == [228, 24, 47]
    assert len(objects("dockerignore/matches.jsonl")) == 72
