"""Rules about what goes into the image's config: CMD, ENTRYPOINT, HEALTHCHECK, WORKDIR and EXPOSE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile, CheckedStage


def json_args_recommended(file: CheckedFile) -> Iterator[Problem]:
    """CMD or ENTRYPOINT as a shell's command, where nobody chose that shell with SHELL."""
    for view in file.active:
        for step in view.steps:
            instruction = step.instruction
            if not isinstance(instruction, ast.Cmd | ast.Entrypoint) or step.shell:
                continue
            command = instruction.command
            if isinstance(command, ast.ShellForm):
                keyword = "CMD" if isinstance(instruction, ast.Cmd) else "ENTRYPOINT"
                message = (
                    f"JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
                )
                yield Problem(instruction, message, f"{keyword} {_as_json(command.text)}")


def _as_json(command: str) -> str:
    """The command as an argument vector; what only a shell understands is given to one."""
    import contextlib
    import json
    import shlex

    if not set(command) & set("$&|;<>()`*?~#!{}\\\n") and "=" not in command.partition(" ")[0]:
        with contextlib.suppress(ValueError):  # quotes that do not match
            return json.dumps(shlex.split(command), ensure_ascii=False)
    return json.dumps(["/bin/sh", "-c", command], ensure_ascii=False)


def multiple_instructions_disallowed(file: CheckedFile) -> Iterator[Problem]:
    """A second CMD, ENTRYPOINT or HEALTHCHECK in a stage; told at the first, which is the one that does nothing."""
    for view in file.active:
        last: dict[str, ast.Instruction] = {}
        for instruction in view.stage.instructions:
            if isinstance(instruction, ast.Cmd | ast.Entrypoint | ast.Healthcheck):
                keyword = type(instruction).__name__.upper()
                if keyword in last:
                    message = (
                        f"Multiple {keyword} instructions should not be used in the same stage because only the last "
                        "one will be used"
                    )
                    yield Problem(last[keyword], message, f"remove this {keyword}")
                last[keyword] = instruction


def workdir_relative_path(file: CheckedFile) -> Iterator[Problem]:
    """The first WORKDIR of this file depends on what the base image has; told once, as the rest follows from it."""
    for view in file.active:
        if any(below is not view and _has_workdir(below) for below in _below(view)):
            continue
        for step in view.steps:
            if isinstance(step.instruction, ast.Workdir):
                path = step.before.expand(step.instruction.path)
                known = path or not step.before.unknown_in(step.instruction.path)
                if known and not path.startswith("/"):
                    message = f'Relative workdir "{path}" can have unexpected results if the base image changes'
                    yield Problem(step.instruction, message, f"WORKDIR /{path}")
                break


def _below(view: CheckedStage) -> Iterator[CheckedStage]:
    at: CheckedStage | None = view
    while at is not None:
        yield at
        at = at.parent


def _has_workdir(view: CheckedStage) -> bool:
    return any(isinstance(instruction, ast.Workdir) for instruction in view.stage.instructions)


def expose_proto_casing(file: CheckedFile) -> Iterator[Problem]:
    """`EXPOSE 80/TCP`."""
    for instruction, written, port in _ports(file):
        protocol = port.partition("/")[2]
        if protocol != protocol.lower():
            message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
            yield Problem(instruction, message, f"EXPOSE {port.lower()}", instruction.span.find(written))


def expose_invalid_format(file: CheckedFile) -> Iterator[Problem]:
    """`EXPOSE 127.0.0.1:80:80`: only the container's port counts."""
    for instruction, written, port in _ports(file):
        container = port.rpartition(":")[2]
        if container != port:
            message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            yield Problem(instruction, message, f"EXPOSE {container}", instruction.span.find(written))


def _ports(file: CheckedFile) -> Iterator[tuple[ast.Expose, str, str]]:
    """Instruction, word as written, and each port that it means."""
    for view in file.active:
        for step in view.steps:
            if isinstance(step.instruction, ast.Expose):
                for word in step.instruction.ports:
                    for port in step.before.expand(word).split():
                        yield step.instruction, word, port
