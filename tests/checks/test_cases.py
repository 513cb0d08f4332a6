"""Each rule has a folder of good and bad Dockerfiles: `cases/RULE/{good,bad}*`.

A bad case has a file `expected` with the rule's findings, a line each: `LINE:COLUMN MESSAGE | ADVICE`. `options.json`, if it is
there, gives `platform`, `build_args`, `experimental` and the configs of base images that are at hand, by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cache.image_config import ImageConfig
from cache.platform import Platform
from compiler.checks.control import Control
from compiler.checks.engine import run_checks
from compiler.checks.file import CheckedFile
from compiler.checks.ignore_rules import ignore_rules
from compiler.checks.registry import BUILDKIT, strict_rules
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.options import BuildOptions
from compiler.session import Definition

CASES = Path(__file__).parent / "cases"
RULES = (*BUILDKIT, *strict_rules())
FOLDERS = sorted(path.parent for path in CASES.glob("*/*/Dockerfile"))


def findings(folder: Path, rule: str) -> str:
    """The rule's findings in the form of `expected`."""
    source = Source.from_bytes("Dockerfile", (folder / "Dockerfile").read_bytes())
    given: dict[str, Any] = {}
    if (folder / "options.json").exists():
        given = json.loads((folder / "options.json").read_text())

    def image(name: str, platform: Platform) -> ImageConfig | None:
        config = given.get("images", {}).get(name)
        if config is None:
            return None
        fields: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        return ImageConfig.empty(platform)._replace(**fields)

    options = BuildOptions(
        Platform.parse(given.get("platform", "linux/amd64")), build_args=tuple(given.get("build_args", {}).items())
    )
    definition = Definition(source, str(folder), str(folder / "Dockerfile"))
    file = CheckedFile(parse_dockerfile(source), options, image, lambda: ignore_rules(definition), whole=True)
    control = Control.parse(f"experimental={given.get('experimental', '')}")
    found = run_checks(file, control, strict=True)
    return "".join(
        f"{each.span.first_line}:{each.span.first_column} {each.message} | {each.advice}\n"
        for each in found
        if each.rule.name == rule
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_case(folder: Path) -> None:
    expected = (folder / "expected").read_text() if folder.name.startswith("bad") else ""
    assert findings(folder, folder.parent.name) == expected


def test_every_rule_has_a_good_and_a_bad_case_and_a_page() -> None:
    page = (Path(__file__).parents[2] / "docs/checks.md").read_text()
    assert {path.name for path in CASES.iterdir()} == {rule.name for rule in RULES}
    for rule in RULES:
        names = [path.name for path in (CASES / rule.name).iterdir()]
        assert any(name.startswith("good") for name in names), rule.name
        assert any(name.startswith("bad") for name in names), rule.name
        if rule.kind == "strict":
            assert f"\n### {rule.name}\n" in page
        assert rule.name in page
    assert len(BUILDKIT) == 22
    assert len(RULES) == 30
