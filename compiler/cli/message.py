"""How a failure is shown: the place and the line of the Dockerfile, the message, the last output, a hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.dockerfile.errors import DockerfileError
from compiler.failure import FailedAt
from compiler.progress.text import printable, printable_lines
from worker.action import CommandFailed

if TYPE_CHECKING:
    from cache.errors import BuildgraphError


def render(error: BuildgraphError) -> str:
    """Text for stderr, ending in a newline."""
    cause = error.cause if isinstance(error, FailedAt) else error
    lines = []
    if isinstance(cause, CommandFailed) and cause.tail:
        lines += ["  last output:", *(f"  │ {printable(line)}" for line in cause.tail), ""]
    if isinstance(cause, DockerfileError):
        lines += [f"error: {cause.render()}"]
    elif isinstance(error, FailedAt) and error.span is not None:
        lines += [f"error: {error.span}: {cause.message}", error.span.excerpt()]
    else:
        lines += [f"error: {cause.message}"]
    if cause.hint:
        lines += [f"hint: {cause.hint}"]
    # Names out of a Dockerfile, a directory or a registry's answer may hold anything.
    return printable_lines("\n".join(lines)) + "\n"
