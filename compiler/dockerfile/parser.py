"""A whole Dockerfile: global arguments and stages, each with its instructions."""

from __future__ import annotations

from typing import NamedTuple

from compiler.dockerfile.errors import DockerfileError, Finding
from compiler.dockerfile.instructions import Arg, From, Instruction, Maintainer, OnBuild
from compiler.dockerfile.interpret import interpret
from compiler.dockerfile.lexer import Directives, lex
from compiler.dockerfile.source import Source, Span


class Stage(NamedTuple):
    """FROM to the next FROM; `index` counts from 0, `name` is `""` where FROM gives none."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a stage
    name: str
    from_: From
    instructions: tuple[Instruction, ...]
    span: Span


class Dockerfile(NamedTuple):
    """A parsed Dockerfile with at least one stage; `args` are the ARG instructions above the first FROM."""

    source: Source
    directives: Directives
    args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[Finding, ...]


def parse_dockerfile(source: Source) -> Dockerfile:
    """Parse a Dockerfile; DockerfileError, with the place, for the first thing that the language refuses."""
    lexed = lex(source)
    args: list[Arg] = []
    openings: list[From] = []
    bodies: list[list[Instruction]] = []
    for raw in lexed.instructions:
        instruction = interpret(raw, lexed.directives.escape)
        if isinstance(instruction, From):
            openings.append(instruction)
            bodies.append([])
        elif bodies:
            bodies[-1].append(instruction)
        elif isinstance(instruction, Arg):
            args.append(instruction)
        else:
            message = f"{raw.keyword.upper()} stands before the first FROM; only ARG may"
            raise DockerfileError(message, raw.span)
    if not lexed.instructions:
        raise DockerfileError("the file has no instructions", Span(source, 1, 1, 1, 1))
    if not openings:
        raise DockerfileError("the file has no FROM, so there is nothing to build", lexed.instructions[-1].span)
    stages = tuple(
        Stage(index, opening.name, opening, tuple(body), _joined(opening.span, body[-1].span if body else opening.span))
        for index, (opening, body) in enumerate(zip(openings, bodies, strict=True))
    )
    return Dockerfile(source, lexed.directives, tuple(args), stages, lexed.findings)


def stage_number(text: str) -> int | None:
    """A stage's number as `--from` and `--target` write it; None for what is no number."""
    # Python refuses to read numbers of thousands of digits, and there are not that many stages.
    return int(text.lstrip("0")[:20] or 0) if text.isascii() and text.isdigit() else None


def parse_trigger(text: str, source_label: str, escape: str = "\\") -> Instruction:
    """The one instruction of an ONBUILD trigger out of an image's config; DockerfileError for anything else.

    source_label: what messages call the place, such as `ONBUILD of alpine:3.20`.
    """
    source = Source(source_label, text)
    lexed = lex(source, escape, policies=False)  # how a step is treated is not for a base image to say
    if len(lexed.instructions) != 1:
        span = lexed.instructions[1].span if lexed.instructions else Span(source, 1, 1, 1, 1)
        raise DockerfileError("a trigger of ONBUILD is exactly one instruction", span)
    instruction = interpret(lexed.instructions[0], lexed.directives.escape)
    if isinstance(instruction, From | OnBuild | Maintainer):
        keyword = lexed.instructions[0].keyword.upper()
        raise DockerfileError(f"{keyword} is not allowed as a trigger of ONBUILD", instruction.span)
    return instruction


def _joined(first: Span, last: Span) -> Span:
    return first._replace(last_line=last.last_line, last_column=last.last_column)
