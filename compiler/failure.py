"""FailedAt: a failure with the place in the Dockerfile that it belongs to, so that the message can show the line."""

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
