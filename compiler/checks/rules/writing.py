"""Rules about how things are written: names of stages, casing, comments, forms that the language has outgrown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.dockerfile import instructions as ast
from compiler.dockerfile.words import split_blanks, split_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile
    from compiler.dockerfile.source import Span

RESERVED = ("scratch", "context")


def stage_name_casing(file: CheckedFile) -> Iterator[Problem]:
    """A stage's name has upper-case letters; it is lower-cased anyway."""
    for stage in file.dockerfile.stages:
        name = _naming(stage.from_)[1]
        if name != name.lower():
            advice = f"AS {name.lower()}"
            yield Problem(stage.from_, f"Stage name '{name}' should be lowercase", advice, _name_span(stage.from_))


def from_as_casing(file: CheckedFile) -> Iterator[Problem]:
    """FROM and AS are not both upper or both lower case."""
    for stage in file.dockerfile.stages:
        keyword = split_first(stage.from_.text)[0]
        word = _naming(stage.from_)[0]
        if word and keyword.isupper() != word.isupper():
            advice = "AS" if keyword.isupper() else "as"
            yield Problem(
                stage.from_,
                f"'{word}' and '{keyword}' keywords' casing do not match",
                advice,
                stage.from_.span.find(f" {word} ").find(word),
            )


def consistent_instruction_casing(file: CheckedFile) -> Iterator[Problem]:
    """Instructions are neither all upper nor all lower case; the majority says which it should be."""
    instructions = [each for stage in file.dockerfile.stages for each in (stage.from_, *stage.instructions)]
    keywords = [split_first(each.text)[0] for each in instructions]
    lower = sum(keyword.islower() for keyword in keywords)
    wanted = "lowercase" if lower * 2 > len(keywords) else "uppercase"
    for instruction, keyword in zip(instructions, keywords, strict=True):
        right = keyword.lower() if wanted == "lowercase" else keyword.upper()
        if keyword != right:
            message = f"Command '{keyword}' should match the case of the command majority ({wanted})"
            yield Problem(instruction, message, right, instruction.span.find(keyword))


def duplicate_stage_name(file: CheckedFile) -> Iterator[Problem]:
    """Two stages have one name, of which the last is meant by --target and the nearest above by --from."""
    seen: set[str] = set()
    for stage in file.dockerfile.stages:
        if stage.name and stage.name in seen:
            message = f'Duplicate stage name "{stage.name}", stage names should be unique'
            yield Problem(stage.from_, message, "give this stage another name", _name_span(stage.from_))
        seen.add(stage.name)


def reserved_stage_name(file: CheckedFile) -> Iterator[Problem]:
    """A stage is called as something that FROM or COPY means otherwise."""
    for stage in file.dockerfile.stages:
        if stage.name in RESERVED:
            message = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            yield Problem(stage.from_, message, "give this stage another name", _name_span(stage.from_))


def invalid_definition_description(file: CheckedFile) -> Iterator[Problem]:
    """The comment right above a named stage or an ARG does not start with its name."""
    lines: list[str] | None = None
    for instruction in file.instructions():
        if isinstance(instruction, ast.From):
            name, described = instruction.name, bool(instruction.description)
        elif isinstance(instruction, ast.Arg) and len(instruction.args) == 1:
            name, described = instruction.args[0].name, bool(instruction.args[0].description)
        else:
            continue
        comments = [text for text in instruction.comments if not text.startswith("check=")]
        if not name or described or not comments:
            continue
        lines = lines if lines is not None else file.dockerfile.source.lines()
        above = instruction.span.first_line - 1
        if above and lines[above - 1].lstrip().startswith("#"):
            form = f"# {name} <description>"
            what = "argument" if isinstance(instruction, ast.Arg) else "stage"
            advice = f"{form}, or an empty line below a comment that does not describe the {what}"
            yield Problem(instruction, f"Comment for {name} should follow the format: `{form}`", advice)


def no_empty_continuation(file: CheckedFile) -> Iterator[Problem]:
    """An empty line inside an instruction that goes on over several lines."""
    found = [each for each in file.dockerfile.warnings if each.rule == "NoEmptyContinuation"]
    if not found:
        return
    instructions = list(file.instructions())
    for finding in found:
        line = finding.span.first_line
        around = [each for each in instructions if each.span.first_line <= line]
        yield Problem(around[-1], finding.message, "remove the empty line, or make it a comment", finding.span)


def maintainer_deprecated(file: CheckedFile) -> Iterator[Problem]:
    """MAINTAINER."""
    for stage in file.dockerfile.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, ast.Maintainer):
                message = "Maintainer instruction is deprecated in favor of using label"
                name = instruction.name.replace('"', '\\"')
                yield Problem(instruction, message, f'LABEL org.opencontainers.image.authors="{name}"')


def legacy_key_value_format(file: CheckedFile) -> Iterator[Problem]:
    """`ENV name value` and `LABEL name value`."""
    for stage in file.dockerfile.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, ast.Env | ast.Label) and instruction.legacy:
                keyword = "ENV" if isinstance(instruction, ast.Env) else "LABEL"
                message = f'"{keyword} key=value" should be used instead of legacy "{keyword} key value" format'
                (pair,) = instruction.pairs
                value = pair.value
                if " " in value and value[:1] not in "\"'":
                    value = f'"{value}"'
                yield Problem(instruction, message, f"{keyword} {pair.key}={value}")


def _naming(from_: ast.From) -> tuple[str, str]:
    """AS and the name as they are written, empty where there is none."""
    if not from_.name:
        return "", ""
    words = split_blanks(from_.text)
    return words[-2], words[-1]


def _name_span(from_: ast.From) -> Span:
    """Where the stage's name stands, not the same word in the image's name."""
    word, name = _naming(from_)
    place = from_.span.find(f"{word} {name}")
    if place is from_.span:  # several blanks between them
        return place.find(name)
    return place._replace(first_column=place.last_column - len(name) + 1)
