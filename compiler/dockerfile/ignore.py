"""The text of a `.dockerignore` file as rules, each pattern checked where it stands."""

from __future__ import annotations

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.source import Source, Span
from worker.ignore import IgnoreRules, clean_pattern


def parse_ignore_file(text: str, name: str = ".dockerignore") -> IgnoreRules:
    """Read an ignore file; DockerfileError, which names `name` and the line, for a malformed pattern."""
    source = Source(name, text)
    patterns: list[str] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.startswith("#"):
            continue
        try:
            pattern = clean_pattern(line)
        except ValueError as error:
            raise DockerfileError(str(error), Span(source, number, 1, number, max(1, len(line)))) from None
        if pattern:
            patterns.append(pattern)
    return IgnoreRules(tuple(patterns))
