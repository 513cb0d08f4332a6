"""LinePlace: the step that stands at a line of a Dockerfile, and what to say where none does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.errors import UsageError
from compiler.dockerfile.instructions import Add, Copy, Run, Workdir
from compiler.stage_names import stage_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from compiler.dockerfile.parser import Dockerfile
    from compiler.graph import Node

_DIGITS = 8
"""Of a number that can be a line."""


class _Place(NamedTuple):
    """node: the id that a step would have; also of instructions that make none."""

    node: str
    is_step: bool
    first: int
    last: int
    keyword: str


def line_number(word: str) -> int | None:
    """The line that a word means, `12` or `:12`; None for another word."""
    digits = word.removeprefix(":")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS else None


def step_at(dockerfile: Dockerfile, line: int) -> str:
    """The id of the step at a line. Raises UsageError, which says what is there instead and what is near."""
    places = list(_places(dockerfile))
    here = next((place for place in places if place.first <= line <= place.last), None)
    if here is not None and here.is_step:
        return here.node
    count = len(dockerfile.source.lines())
    if not 1 <= line <= count:
        raise UsageError(f"there is no line {line}: the Dockerfile has {count}", hint=_near(places, line))
    # No more than the keyword: values may be secret.
    what = "no instruction" if here is None else f"{here.keyword}, which is no step"
    raise UsageError(f"line {line} of the Dockerfile holds {what}", hint=_near(places, line))


def trigger_at(steps: Iterable[Node], line: int) -> Node | None:
    """The step that the base image named in a line left for what is built on it; None if it left none. Raises
    UsageError, which lists them, if it left several."""
    found = [
        step for step in steps
        if step.span is not None and step.span.note and step.span.first_line <= line <= step.span.last_line
    ]  # fmt: skip
    if len(found) < 2:
        return found[0] if found else None
    note = "" if found[0].span is None else found[0].span.note
    text = f"line {line} of the Dockerfile holds FROM and {len(found)} steps, {note}"
    raise UsageError(text, hint=f"they are {', '.join(f'{each.id} ({_keyword(each.text)})' for each in found)}")


def _places(dockerfile: Dockerfile) -> Iterator[_Place]:
    for arg in dockerfile.args:
        yield _Place("", False, arg.span.first_line, arg.span.last_line, "ARG")
    for stage, name in zip(dockerfile.stages, stage_names(dockerfile.stages), strict=True):
        opening = stage.from_
        yield _Place("", False, opening.span.first_line, opening.span.last_line, "FROM")
        for number, each in enumerate(stage.instructions, 1):
            is_step = isinstance(each, Run | Copy | Add | Workdir)
            yield _Place(f"{name}.{number}", is_step, each.span.first_line, each.span.last_line, _keyword(each.text))


def _near(places: list[_Place], line: int) -> str:
    steps = [place for place in places if place.is_step]
    near = [place for place in steps if place.last < line][-1:] + [place for place in steps if place.first > line][:1]
    named = " and ".join(f"{place.node} ({place.keyword}, line {place.first})" for place in near)
    return f"near it: {named}" if named else ""


def _keyword(text: str) -> str:
    return text.split(maxsplit=1)[0].upper()
