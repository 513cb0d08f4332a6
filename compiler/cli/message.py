"""How a failure is shown: the place and the line of the Dockerfile, the message, the last output, a hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.dockerfile.errors import DockerfileError
from compiler.failure import FailedAt
from compiler.progress.text import printable, printable_lines
from worker.action import CommandFailed

if TYPE_CHECKING:
    from cache.errors import BuildgraphError

REFERENCE = "https://docs.docker.com/reference/dockerfile/"
KEYWORDS = frozenset(
    [
        "add",
        "arg",
        "cmd",
        "copy",
        "entrypoint",
        "env",
        "expose",
        "from",
        "healthcheck",
        "label",
        "maintainer",
        "onbuild",
        "run",
        "shell",
        "stopsignal",
        "user",
        "volume",
        "workdir",
    ]
)


def render(error: BuildgraphError) -> str:
    """Text for stderr, ending in a newline."""
    cause = error.cause if isinstance(error, FailedAt) else error
    lines = []
    if isinstance(cause, CommandFailed) and cause.tail:
        lines += ["  last output:", *(f"  │ {printable(line)}" for line in cause.tail), ""]
    if isinstance(cause, DockerfileError):
        lines += [f"error: {cause.render()}"]
        page = reference_page(cause)
        if page:
            lines += [f"see: {page}"]
    elif isinstance(error, FailedAt) and error.span is not None:
        lines += [f"error: {error.span}: {cause.message}", error.span.excerpt()]
    else:
        lines += [f"error: {cause.message}"]
    if cause.hint:
        lines += [f"hint: {cause.hint}"]
    # Names out of a Dockerfile, a directory or a registry's answer may hold anything.
    return printable_lines("\n".join(lines)) + "\n"


def reference_page(error: DockerfileError) -> str:
    """Where the instruction that an error points at is described, "" if it points at none."""
    lines = error.span.source.lines()
    words = lines[error.span.first_line - 1].split() if 0 < error.span.first_line <= len(lines) else []
    keyword = words[0].lower() if words else ""
    return f"{REFERENCE}#{keyword}" if keyword in KEYWORDS else ""
