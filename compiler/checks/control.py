"""Control: which rules are on, from the `# check=` directive, comments above instructions, and the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.errors import UsageError
from compiler.checks.rule import DEFAULT, STRICT
from compiler.dockerfile.errors import DockerfileError, did_you_mean
from compiler.dockerfile.source import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiler.checks.rule import Rule
    from compiler.dockerfile.instructions import Instruction
    from compiler.dockerfile.parser import Dockerfile

VARIABLE = "BUILDKIT_DOCKERFILE_CHECK"
"""Build argument or variable of the environment that stands in for the directive."""
ALL = "all"
_OPTIONS = ("skip", "error", "experimental")
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class Control:
    """Immutable. skip, experimental: names of rules in lower case, or `all`. error: findings fail the build."""

    __slots__ = ("error", "experimental", "skip")

    def __init__(
        self, skip: frozenset[str] = frozenset(), experimental: frozenset[str] = frozenset(), error: bool = False
    ) -> None:
        self.skip = skip
        self.experimental = experimental
        self.error = error

    @classmethod
    def parse(cls, text: str) -> Control:
        """Read `skip=A,B;error=true;experimental=all`, the last of a repeated option; ValueError for anything else."""
        names: dict[str, frozenset[str]] = {}
        error = False
        for part in text.split(";"):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not name and not equals:
                continue
            if name not in _OPTIONS or not equals:
                raise ValueError(f"unknown check option {part.strip()}{did_you_mean(name, _OPTIONS)}")
            if name != "error":
                names[name] = frozenset(word.strip().lower() for word in value.split(",") if word.strip())
            elif value.lower() in _BOOLEANS:
                error = _BOOLEANS[value.lower()]
            else:
                raise ValueError(f"check option error is true or false, not {value}")
        return cls(names.get("skip", frozenset()), names.get("experimental", frozenset()), error)

    def enables(self, rule: Rule, strict: bool) -> bool:
        """Whether the rule is on; `experimental=all` means BuildKit's, so that a file means the same to docker."""
        name = rule.name.lower()
        if ALL in self.skip or name in self.skip:
            return False
        if rule.kind == DEFAULT or name in self.experimental:
            return True
        return strict if rule.kind == STRICT else ALL in self.experimental

    def merged(self, inner: Control) -> Control:
        """With what a comment above an instruction adds."""
        return Control(self.skip | inner.skip, self.experimental | inner.experimental, self.error or inner.error)


def file_control(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> Control:
    """Of a whole file: the build argument, else the environment, else the directive; one replaces the other.

    Raises DockerfileError or UsageError for one that is malformed.
    """
    text = build_args.get(VARIABLE, os.environ.get(VARIABLE, ""))
    try:
        if text:
            return Control.parse(text)
        return Control.parse(dockerfile.directives.check)
    except ValueError as error:
        if text:
            raise UsageError(f"{VARIABLE}: {error}") from None
        directive = dockerfile.directives.check
        everywhere = Span(dockerfile.source, 1, 1, dockerfile.stages[0].span.first_line, 1)
        raise DockerfileError(str(error), everywhere.find(directive)) from None


def comment_control(instruction: Instruction) -> Control | None:
    """Of one instruction, from `# check=…` in the comments above it; None for none. Raises DockerfileError."""
    found = None
    for comment in instruction.comments:
        keyword, equals, text = comment.partition("=")
        if not equals or keyword.rstrip() != "check":
            continue
        try:
            control = Control.parse(text)
        except ValueError as error:
            raise DockerfileError(str(error), instruction.span) from None
        found = found.merged(control) if found else control
    return found
