"""Rule, one thing to check; Problem, what its function says; Reported, what the user is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compiler.checks.file import CheckedFile
    from compiler.dockerfile.instructions import Instruction
    from compiler.dockerfile.source import Span

# Plain classes: each NamedTuple costs 0.15 ms, and every build imports these.

PAGES = "https://docs.docker.com/reference/build-checks/"
OWN_PAGE = "docs/checks.md"

DEFAULT = "default"
EXPERIMENTAL = "experimental"
STRICT = "strict"
"""When a rule is on: always; where `experimental=` asks for it; there and with `--strict`."""


class Problem:
    """One place that breaks a rule; immutable.

    instruction: whose comments control the rule. advice: what to write instead. span: the instruction's if not given.
    """

    __slots__ = ("advice", "instruction", "message", "span")

    def __init__(self, instruction: Instruction, message: str, advice: str, span: Span | None = None) -> None:
        self.instruction = instruction
        self.message = message
        self.advice = advice
        self.span = span or instruction.span


class Rule:
    """Immutable. check: yields the problems of a file, in any order; no I/O beyond what the file's callables do."""

    __slots__ = ("check", "description", "kind", "name")

    def __init__(
        self,
        name: str,
        description: str,
        check: Callable[[CheckedFile], Iterator[Problem]],
        kind: str = DEFAULT,
    ) -> None:
        self.name = name
        self.description = description
        self.check = check
        self.kind = kind

    @property
    def url(self) -> str:
        """The rule's page; for our own one the place in this repository; `""` where BuildKit has none."""
        if self.kind == STRICT:
            return f"{OWN_PAGE}#{self.name.lower()}"
        if self.name == "InvalidBaseImagePlatform":
            return ""
        import re

        kebab = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", self.name).lower()
        return f"{PAGES}{kebab}/"


class Reported:
    """A problem that no control silenced; immutable. error: it fails the build."""

    __slots__ = ("advice", "error", "message", "rule", "span")

    def __init__(self, rule: Rule, problem: Problem, error: bool) -> None:
        self.rule = rule
        self.message = problem.message
        self.advice = problem.advice
        self.span = problem.span
        self.error = error
