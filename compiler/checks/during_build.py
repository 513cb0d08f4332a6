"""Checks in a normal build: refused before anything runs, or told when it is over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.images import Images
from compiler.checks.control import VARIABLE, file_control
from compiler.checks.engine import run_checks
from compiler.checks.file import CheckedFile
from compiler.checks.ignore_rules import ignore_rules
from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.parser import parse_dockerfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.image_config import ImageConfig
    from cache.platform import Platform
    from cache.store import Store
    from compiler.checks.rule import Reported
    from compiler.dockerfile.parser import Dockerfile
    from compiler.options import BuildOptions
    from compiler.session import Definition, Session


class ChecksFailed(DockerfileError):
    """Findings that `error=true` makes errors; `render` shows each with its line."""

    def __init__(self, findings: Sequence[Reported]) -> None:
        first = findings[0]
        names = ", ".join(sorted({finding.rule.name for finding in findings}))
        super().__init__(
            f"lint violation found for rules: {names}",
            first.span,
            hint="error=true makes findings errors; skip=RULE silences one",
        )
        self.findings = tuple(findings)

    def render(self) -> str:
        shown = [f"{each.span}: {each.rule.name}: {each.message}\n{each.span.excerpt()}" for each in self.findings]
        return "\n".join([self.message, *shown])


def refuse_early(store: Store, definition: Definition, variants: Sequence[BuildOptions]) -> None:
    """Raises ChecksFailed before anything runs. Without `error=true` anywhere this costs nothing.

    A Dockerfile in a remote context is not there yet: `build_warnings` refuses it before an image is written.
    """
    source = definition.source
    if source is None:
        return
    given = dict(variants[0].build_args).get(VARIABLE, os.environ.get(VARIABLE, ""))
    if "error" not in given and not ("error" in source.text and any(map(_asks_for_errors, source.lines()))):
        return
    dockerfile = parse_dockerfile(source)
    images = Images(store)
    for options in variants:
        refuse(_findings(dockerfile, options, images, definition)[1])


def _asks_for_errors(line: str) -> bool:
    """Whether it may be a directive or comment with `error=true`; the parser decides."""
    return line.lstrip().startswith("#") and "check" in line and "error" in line


def build_warnings(sessions: Sequence[Session], definition: Definition) -> list[str]:
    """What to warn about after a build; each text may have several lines. Raises ChecksFailed."""
    found: dict[str, None] = {}
    for session in sessions:
        file, findings = _findings(session.dockerfile, session.options, session.images, definition)
        refuse(findings)
        if findings:
            from compiler.checks.text import summary

            found[summary(findings)] = None
        if session.options.build_args:
            from compiler.checks.build_args import unconsumed

            unused = unconsumed(file, session.options)
            if unused:
                found[unused] = None
    return list(found)


def _findings(
    dockerfile: Dockerfile, options: BuildOptions, images: Images, definition: Definition
) -> tuple[CheckedFile, list[Reported]]:
    def known(name: str, platform: Platform) -> ImageConfig | None:
        return image_at_hand(images, name, platform)

    file = CheckedFile(dockerfile, options, known, lambda: ignore_rules(definition))
    return file, run_checks(file, file_control(dockerfile, dict(options.build_args)))


def refuse(findings: Sequence[Reported]) -> None:
    """Raises ChecksFailed if one of them is an error."""
    errors = [finding for finding in findings if finding.error]
    if errors:
        raise ChecksFailed(errors)


def image_at_hand(images: Images, name: str, platform: Platform) -> ImageConfig | None:
    """The config of an image that the store has; asks no registry."""
    from cache.errors import BuildgraphError
    from cache.reference import Reference

    try:
        stored = images.get(str(Reference.parse(name)), platform)
    except BuildgraphError:
        return None
    return None if stored is None else stored.config
