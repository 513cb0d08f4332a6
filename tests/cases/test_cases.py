"""Every folder here is one build; and together they cover the language (reference 1.1 to 1.7)."""

from __future__ import annotations

import json
import re
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from case import Case, load
from check import problems

if TYPE_CHECKING:
    from concurrent.futures import Future

    from runner import Outcome

CASES = load()
FLAGS = {
    "FROM": "platform",
    "RUN": "mount network security device",
    "COPY": "from chown chmod link exclude",
    "ADD": "chown chmod link checksum unpack exclude",
    "HEALTHCHECK": "interval timeout start-period start-interval retries",
}
ROWS = 24
"""Of section 1.7."""


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[case.name].result()
    error = case.expect.get("error")
    if error is not None:
        assert outcome.code == error["code"], outcome.stderr
        for text in error.get("says", []):
            assert text in outcome.stderr
        if "line" in error:
            shown = re.search(rf"^ *{error['line']} \| ", outcome.stderr, re.MULTILINE)
            assert shown, f"line {error['line']} is not shown:\n{outcome.stderr}"
        assert "Traceback" not in outcome.stderr
        assert not outcome.archive.exists()
        return
    assert outcome.code == 0, outcome.stderr
    if "platforms" in case.expect:
        assert platforms(outcome) == sorted(case.expect["platforms"])
        return
    assert outcome.image is not None
    found = problems(case, outcome.image)
    assert not found, "\n".join(found)


def platforms(outcome: Outcome) -> list[str]:
    """What an OCI archive holds images for."""
    with tarfile.open(outcome.archive) as tar:

        def read(name: str) -> dict[str, Any]:
            member = tar.extractfile(name)
            assert member is not None
            document: dict[str, Any] = json.load(member)
            return document

        top = read("index.json")["manifests"]
        nested = [m for t in top if "index" in t["mediaType"] for m in read(f"blobs/sha256/{t['digest'][7:]}")["manifests"]]
        found = [m["platform"] for m in nested or top]
    return sorted("/".join(filter(None, (p["os"], p["architecture"], p.get("variant")))) for p in found)


def test_there_are_enough() -> None:
    assert len(CASES) >= 150


def test_every_row_of_the_pitfalls_has_a_case() -> None:
    covered = {row for case in CASES for row in case.expect.get("rows", [])}
    assert covered >= set(range(1, ROWS + 1)), sorted(set(range(1, ROWS + 1)) - covered)


@pytest.mark.parametrize(("keyword", "flag"), [(keyword, flag) for keyword, flags in FLAGS.items() for flag in flags.split()])
def test_every_flag_has_two_cases(keyword: str, flag: str) -> None:
    pattern = re.compile(rf"^\s*(ONBUILD\s+)?{keyword}\s+(--\S+\s+)*--{flag}\b", re.MULTILINE | re.IGNORECASE)
    found = [case.name for case in CASES if pattern.search(case.dockerfile.read_text("utf-8-sig"))]
    assert len(found) >= 2, found


def test_every_case_says_what_it_is_about() -> None:
    silent = [case.name for case in CASES if not case.expect.get("about") or len(case.expect) < 2]
    assert not silent
