"""Rules about ARG, ENV and the variables that instructions use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.dockerfile import instructions as ast
from compiler.secret_names import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from compiler.checks.file import CheckedFile
    from compiler.checks.variables import Variables
    from compiler.dockerfile.source import Span

_NEAR = 0.6
_VERY_NEAR = 0.85
"""How alike (difflib's ratio) two names must be for a hint, and for a finding where the base image is unknown."""


def undefined_arg_in_from(file: CheckedFile) -> Iterator[Problem]:
    """FROM uses an argument that no ARG above the first stage declares."""
    for view in file.active:
        from_ = view.stage.from_
        for name in (*file.globals.unknown_in(from_.image), *file.globals.unknown_in(from_.platform)):
            near = nearest(name, file.globals.declared)
            hint = f" (did you mean {near}?)" if near else ""
            advice = f"${near}" if near else f"ARG {name}=… above the first FROM"
            yield Problem(from_, f"FROM argument '{name}' is not declared{hint}", advice, _variable_span(from_, name))


def invalid_default_arg_in_from(file: CheckedFile) -> Iterator[Problem]:
    """Without any --build-arg, FROM would have no valid image name."""
    defaults: Variables | None = None
    for stage in file.dockerfile.stages:
        from_ = stage.from_
        if "$" not in from_.image:
            continue
        from cache.reference import InvalidReference, Reference

        defaults = defaults or file.defaults
        image = defaults.expand(from_.image)
        if any(other.name and other.name == image.lower() for other in file.dockerfile.stages[: stage.index]):
            continue
        try:
            Reference.parse(image)
        except InvalidReference:
            message = f"Default value for ARG {from_.image} results in empty or invalid base image name"
            advice = "give the ARG a default, or write ${NAME:-default} here"
            yield Problem(from_, message, advice, from_.span.find(from_.image))


def undefined_var(file: CheckedFile) -> Iterator[Problem]:
    """An instruction uses a variable that nothing above it sets.

    What an unknown base image sets is unknown: there only names are told that are all but the same as one that is set,
    or that an ARG above the first stage declares and this stage does not.
    """
    for view in file.active:
        for step in view.steps:
            if "$" not in step.instruction.text and not getattr(step.instruction, "heredocs", ()):
                continue
            missing: dict[str, None] = {}
            for text, raw in _expanded_texts(step.instruction):
                missing |= dict.fromkeys(step.before.unknown_in(text, raw=raw))
            for name in missing:
                problem = _undefined(name, step.instruction, step.before)
                if problem is not None:
                    yield problem


def _undefined(name: str, instruction: ast.Instruction, variables: Variables) -> Problem | None:
    is_global = name in variables.global_names
    near = "" if is_global else nearest(name, variables.declared, _NEAR if variables.complete else _VERY_NEAR)
    if not (variables.complete or is_global or near):
        return None
    hint = f" (did you mean ${near}?)" if near else ""
    advice = f"${near}" if near else f"ARG {name} or ENV {name}=… above it in this stage"
    if isinstance(instruction, ast.Add | ast.Copy) and any(
        f"${name}" in heredoc.body or f"${{{name}" in heredoc.body for heredoc in instruction.heredocs
    ):
        advice += "; quote the heredoc's name (<<'EOF') if the text is not to be expanded"
    message = f"Usage of undefined variable '${name}'{hint}"
    return Problem(instruction, message, advice, _variable_span(instruction, name))


def _expanded_texts(instruction: ast.Instruction) -> Iterable[tuple[str, bool]]:
    """What the language expands of an instruction; True for heredoc bodies."""
    match instruction:
        case ast.Copy() | ast.Add():
            texts = [*instruction.sources, instruction.destination, instruction.chown, instruction.chmod]
            if isinstance(instruction, ast.Add):
                texts.append(instruction.checksum)
            bodies = [heredoc.content for heredoc in instruction.heredocs if heredoc.expand]
            return [*((text, False) for text in texts), *((body, True) for body in bodies)]
        case ast.Env() | ast.Label():
            return [(text, False) for pair in instruction.pairs for text in pair]
        case ast.Arg():
            return [(arg.default, False) for arg in instruction.args if arg.default]
        case ast.Run():
            return [(mount, False) for mount in instruction.mounts]
        case ast.Expose():
            return [(port, False) for port in instruction.ports]
        case ast.Volume():
            return [(path, False) for path in instruction.paths]
        case ast.Workdir():
            return [(instruction.path, False)]
        case ast.User():
            return [(instruction.user, False)]
        case ast.StopSignal():
            return [(instruction.signal, False)]
    return []


def secrets_used_in_arg_or_env(file: CheckedFile) -> Iterator[Problem]:
    """An ARG or ENV is called like something secret: it stays readable in the image and its history."""
    for view in file.active:
        for instruction in view.stage.instructions:
            if isinstance(instruction, ast.Arg):
                names, keyword = [arg.name for arg in instruction.args], "ARG"
            elif isinstance(instruction, ast.Env):
                names, keyword = [pair.key for pair in instruction.pairs], "ENV"
            else:
                continue
            for name in names:
                if is_secret_name(name):
                    message = f'Do not use ARG or ENV instructions for sensitive data ({keyword} "{name}")'
                    advice = f"RUN --mount=type=secret,id={name},env={name} …, or give it when the image is run"
                    yield Problem(instruction, message, advice, instruction.span.find(name))


def nearest(name: str, choices: Iterable[str], cutoff: float = _NEAR) -> str:
    """The choice that is most like the name, `""` if none is."""
    import difflib  # 5 ms that only a finding has to pay

    by_folded = {choice.casefold(): choice for choice in sorted(choices)}
    near = difflib.get_close_matches(name.casefold()[:100], by_folded, n=1, cutoff=cutoff)
    return by_folded[near[0]] if near else ""


def _variable_span(instruction: ast.Instruction, name: str) -> Span:
    place = instruction.span.find(f"${name}")
    return place if place is not instruction.span else instruction.span.find(f"${{{name}")
