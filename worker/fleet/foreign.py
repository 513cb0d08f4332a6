"""What a worker does to actions of others, so that they do no more than they may, and nobody sees their secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem
from worker.operation import Run
from worker.output import REDACT_FROM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.action import Action


def isolated(action: Action, namespace: str) -> Action:
    """The action as it may be executed: its cache mounts are those of its namespace alone.

    Raises EnvironmentProblem for one that would get rights over the machine.
    """
    operation = action.operation
    if not isinstance(operation, Run):
        return action
    if operation.insecure:
        raise EnvironmentProblem("commands that get all rights (security=insecure) are not executed for others")
    if not namespace:
        return action
    # A NUL, which no id of an action has, keeps them apart from those of the default namespace.
    mounts = tuple(
        mount._replace(id=f"{namespace}\0{mount.id}") if mount.type == "cache" else mount for mount in operation.mounts
    )
    return action._replace(operation=operation._replace(mounts=mounts))


def without_secrets(secrets: Mapping[str, bytes]) -> Callable[[str], str]:
    """Takes the values of secrets, and each of their lines, out of a text; also where it was made with `repr`."""
    values = [value.decode("utf-8", "surrogateescape") for value in secrets.values()]
    lines = {line.strip() for value in values for line in (value, *value.splitlines())}
    plain = {line for line in lines if len(line) >= REDACT_FROM}
    long = plain | {repr(line)[1:-1] for line in plain}
    if not long:
        return str
    pattern = re.compile("|".join(map(re.escape, sorted(long, key=len, reverse=True))))
    return lambda text: pattern.sub("[secret]", text)
