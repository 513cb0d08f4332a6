"""Failures of a build: at a place in the Dockerfile, so that the message can show the line; or of what was believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import BuildgraphError

if TYPE_CHECKING:
    from compiler.dockerfile.source import Span


class FailedAt(BuildgraphError):
    """cause: what went wrong, which also decides the exit code. span: the instruction, None if there is none."""

    def __init__(self, span: Span | None, cause: BuildgraphError) -> None:
        super().__init__(cause.message, hint=cause.hint)
        self.span = span
        self.cause = cause


class Contradicted(BuildgraphError):
    """A known result was made from something else than what the build has just made below it: the build begins again
    without it, and nobody needs to know."""

    def __init__(self, step: str) -> None:
        super().__init__(f"what {step} was made of has come out otherwise", hint="build again")
