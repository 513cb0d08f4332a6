"""Outline: what a build of one target can be given: arguments, secrets, ssh agents; for `--call=outline`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from compiler.checks.lint_json import encoded, location
from compiler.checks.table import table
from compiler.dockerfile import instructions as ast
from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.expand import ExpansionError, expand
from compiler.dockerfile.mounts import parse_mount
from compiler.secret_names import is_secret_name
from compiler.secret_values import MASK, SecretValues

if TYPE_CHECKING:
    from compiler.checks.file import CheckedFile, Step
    from compiler.dockerfile.mounts import Mount
    from compiler.dockerfile.source import Span


class Argument(NamedTuple):
    """value: what the build would take, `""` for none; of a secret that was given only that there is one."""

    name: str
    description: str
    value: str
    span: Span


class Needed(NamedTuple):
    """A secret or an ssh agent."""

    name: str
    required: bool
    span: Span


class Outline(NamedTuple):
    """Of one target and the stages that it needs. caches: ids of cache mounts. All by name, each once."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    secrets: tuple[Needed, ...]
    ssh: tuple[Needed, ...]
    caches: tuple[tuple[str, Span], ...]


def outline(file: CheckedFile) -> Outline:
    """Raises DockerfileError for a mount that is none."""
    arguments: dict[str, Argument] = {}
    needed: dict[str, dict[str, Needed]] = {"secret": {}, "ssh": {}}
    caches: dict[str, Span] = {}
    stages = file.needed()
    given = file.globals.build_args
    secrets = SecretValues(value for name, value in given.items() if is_secret_name(name))

    def shown(name: str, value: str) -> str:
        return MASK if name in given and is_secret_name(name) else secrets.shown(value)

    used = set()
    for view in stages:
        used |= _names_in(view.stage.from_.image) | _names_in(view.stage.from_.platform)
        for step in view.steps:
            if isinstance(step.instruction, ast.Arg):
                used |= {arg.name for arg in step.instruction.args}
    for instruction in file.dockerfile.args:
        for name, _, description in instruction.args:
            if name in used:
                value = file.globals.values.get(name, "")
                arguments[name] = Argument(name, description, shown(name, value), instruction.span)
    for view in stages:
        for step in view.steps:
            if isinstance(step.instruction, ast.Arg):
                after = step.before.following(step.instruction).values
                for name, _, description in step.instruction.args:
                    above = arguments.get(name)
                    description = description or (above.description if above else "")
                    value = shown(name, after.get(name, ""))
                    arguments[name] = Argument(name, description, value, step.instruction.span)
            elif isinstance(step.instruction, ast.Run):
                for mount in _mounts(step, step.instruction):
                    span = step.instruction.span
                    if mount.type == "cache":
                        caches.setdefault(mount.id or mount.target, span)
                    elif mount.type in needed:
                        kind = needed[mount.type]
                        before = kind.get(mount.id)
                        required = mount.required or (before is not None and before.required)
                        kind[mount.id] = Needed(mount.id, required, before.span if before else span)
    target = file.target.stage
    return Outline(
        target.name,
        target.from_.description,
        tuple(arguments.values()),
        tuple(needed["secret"][name] for name in sorted(needed["secret"])),
        tuple(needed["ssh"][name] for name in sorted(needed["ssh"])),
        tuple(sorted(caches.items())),
    )


def _names_in(text: str) -> set[str]:
    names: set[str] = set()
    try:
        expand(text, lambda name: "", seen=lambda name, found: names.add(name))
    except ExpansionError:
        return names
    return names


def _mounts(step: Step, instruction: ast.Run) -> list[Mount]:
    found = []
    for text in instruction.mounts:
        try:
            found.append(parse_mount(text, instruction.span.find("--mount"), step.before.expand))
        except DockerfileError:
            # With a value that only a --build-arg gives, it may still be right.
            if "$" not in text:
                raise
    return found


def render_text(file: CheckedFile) -> str:
    """Tables for people."""
    found = outline(file)
    parts = [f"TARGET:      {found.name or 'default'}\n"]
    if found.description:
        parts[0] += f"DESCRIPTION: {found.description}\n"
    if found.arguments:
        rows = [("BUILD ARG", "VALUE", "DESCRIPTION")]
        parts.append(table(rows + [(each.name, each.value or " ", each.description) for each in found.arguments]))
    for heading, all_of_them in (("SECRET", found.secrets), ("SSH", found.ssh)):
        if all_of_them:
            rows_of_two = [(heading, "REQUIRED"), *((each.name, str(each.required).lower()) for each in all_of_them)]
            parts.append(table(rows_of_two))
    if found.caches:
        parts.append(table([("CACHE MOUNT",), *((name,) for name, _ in found.caches)]))
    return "\n".join(parts)


def render_json(file: CheckedFile) -> str:
    """BuildKit's shape; lists that are empty are left out."""
    found = outline(file)
    document: dict[str, Any] = {"name": found.name, "description": found.description}
    document["args"] = [
        {"name": each.name, "description": each.description, "value": each.value, "location": location(each.span)}
        for each in found.arguments
    ]
    for key, all_of_them in (("secrets", found.secrets), ("ssh", found.ssh)):
        document[key] = [
            {"name": each.name, "required": each.required, "location": location(each.span)} for each in all_of_them
        ]
    document["cache"] = [{"ID": name, "location": location(span)} for name, span in found.caches]
    document = {key: value for key, value in document.items() if value != []}
    document["sources"] = [encoded(file.dockerfile.source)]
    return json.dumps(document, indent=2) + "\n"
