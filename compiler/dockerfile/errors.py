"""What is wrong with a Dockerfile, and where: errors that stop a build and findings that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.errors import DefinitionError
from compiler.progress.text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compiler.dockerfile.source import Span


class DockerfileError(DefinitionError):
    """A Dockerfile that cannot be built; `message` says why without the place, `str` with place and excerpt."""

    def __init__(self, message: str, span: Span, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.span = span

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """`Dockerfile:3:1: unknown instruction FORM, did you mean FROM?` and the lines below it."""
        return printable_lines(f"{self.span}: {self.message}\n{self.span.excerpt()}".rstrip())


class Finding(NamedTuple):
    """Something that is allowed but probably not meant; `rule` is the name that users know it by, as in `skip=RULE`."""

    rule: str
    message: str
    span: Span


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`, did you mean FROM?` where a choice is near to the word, else nothing; upper and lower case count as equal."""
    import difflib  # 5 ms that only an error has to pay

    by_folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(word.casefold()[:100], by_folded, n=1)
    return f", did you mean {by_folded[near[0]]}?" if near else ""
