"""StepLog: what a step printed, found by its place in the last build of a Dockerfile or by one of its keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cache.build_record import newest_builds
from cache.errors import EnvironmentProblem, UsageError
from cache.recipe import content_in
from cache.result import Result
from compiler.dockerfile.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.build_record import BuildRecord, NodeRecord
    from cache.digest import Digest
    from cache.store import Store

LEAST_DIGITS = 6
"""Hex digits of a key that are enough, if they fit one only."""
_KEY = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},64}}")
_SHORT = re.compile(rf"(?=.*[0-9])[0-9a-f]{{3,{LEAST_DIGITS - 1}}}")
SHORT_HINT = f"of a key, {LEAST_DIGITS} digits or more are needed"
_LISTED = 10
"""Keys that an ambiguous beginning lists."""
_LISTED_DIGITS = 16


class StepLog(NamedTuple):
    """name: of the step: `build.3 RUN make`, or the beginning of its key where no build that is remembered had it.

    status: as in NodeRecord; "kept" for a result that was asked for by its key. time: when it was made or ran, seconds
    since the epoch. made_by: "" if not known. log: None for nothing printed.
    """

    name: str
    status: str
    time: float
    made_by: str
    seconds: float
    log: Digest | None


def last_build(store: Store, file: str, target: str = "") -> BuildRecord | None:
    """The newest build of a file (`file_key`) that is remembered, of any target if none is given."""
    of_file = (build for build in newest_builds(store) if build.file == file)
    return next((build for build in of_file if not target or build.target == target.lower()), None)


def find_in_build(store: Store, build: BuildRecord, text: str) -> StepLog:
    """The log of a step by its id, or of a stage's last one by the stage's name. Raises UsageError."""
    node = build.node(text) or build.node(text.lower())
    if node is None:
        node = next((each for each in reversed(build.nodes) if each.id.rpartition(".")[0] == text.lower()), None)
    if node is None:
        names = [each.id for each in build.nodes]
        hint = "buildgraph log --list shows what the last build had"
        if is_short(text):
            hint += f"; {SHORT_HINT}"
        raise UsageError(f"there is no step {text!r} in the last build{did_you_mean(text, names)}", hint=hint)
    return _of_node(store, build, node)


def is_key(text: str) -> bool:
    """Whether it could be the beginning of a key."""
    return _KEY.fullmatch(text.lower()) is not None


def is_short(text: str) -> bool:
    """Whether it looks like the beginning of a key, and is too short to be one."""
    return _SHORT.fullmatch(text.lower()) is not None


def find_by_key(store: Store, text: str) -> StepLog | None:
    """The log of a step by the beginning of its recipe or content key; None if that fits none.

    Raises UsageError if it fits several steps.
    """
    if not is_key(text):
        return None
    prefix = text.lower()
    # A step's two keys are one step, and so are two recipes with the same content.
    contents = {key: key for key, _ in store.scan("results", prefix)}
    for key, record in store.scan("recipes", prefix):
        contents.setdefault(content_in(record), key)
    if len(contents) > 1:
        keys = sorted(contents.values())
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        listed = ", ".join(key[: max(_LISTED_DIGITS, len(prefix) + 4)] for key in keys[:_LISTED])
        raise UsageError(f"{text} is the beginning of several keys: {listed}{more}", hint="give more digits")
    if not contents:
        return _failed(store, prefix)
    ((content, key),) = contents.items()
    result = Result.parse(store.get("results", content) if content else None)
    found = next(((build, node) for build, node in _steps(store) if node.content == content), None)
    if result is None:
        return None if found is None else _of_node(store, *found)
    name = key[:_LISTED_DIGITS] if found is None else _name(found[1])
    return StepLog(name, "kept", result.made_at, result.made_by, result.seconds, result.log)


def require_kept(store: Store, found: StepLog) -> None:
    """Raises EnvironmentProblem if the log was there and is gone."""
    if found.log is not None and not store.has_blob(found.log):
        raise EnvironmentProblem(
            f"the log of {found.name} was removed from the store, as it is when the cache is cleaned up",
            hint="--no-cache, or --no-cache-filter with its stage, runs the step again",
        )


def _of_node(store: Store, build: BuildRecord, node: NodeRecord) -> StepLog:
    time, made_by = build.started, build.made_by
    finished = node.content and node.status in ("cached", "ran")
    result = Result.parse(store.get("results", node.content)) if finished else None
    # The result of today may be another build's.
    if result is not None and result.log == node.log:
        time, made_by = result.made_at, result.made_by
    elif node.status == "cached":
        time, made_by = 0.0, ""
    return StepLog(_name(node), node.status, time, made_by, node.seconds, node.log)


def _failed(store: Store, prefix: str) -> StepLog | None:
    """A step that failed has no result; its log is remembered with the build."""
    for build, node in _steps(store):
        if node.status == "failed" and (node.recipe.startswith(prefix) or node.content.startswith(prefix)):
            return _of_node(store, build, node)
    return None


def _steps(store: Store) -> Iterator[tuple[BuildRecord, NodeRecord]]:
    return ((build, node) for build in newest_builds(store) for node in build.nodes)


def _name(node: NodeRecord) -> str:
    return f"{node.id} {node.title}"
