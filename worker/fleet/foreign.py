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
    """Takes the values of secrets out of a text."""
    values = [value.decode("utf-8", "surrogateescape").strip() for value in secrets.values()]
    long = sorted((value for value in values if len(value) >= REDACT_FROM), key=len, reverse=True)
    if not long:
        return str
    pattern = re.compile("|".join(map(re.escape, long)))
    return lambda text: pattern.sub("[secret]", text)
