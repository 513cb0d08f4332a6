"""The --filter of `cache du` and `cache prune`: ours and, where they mean something here, docker's."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from cache.errors import UsageError
from cache.inventory import KINDS
from cache.prune import Filters
from compiler.cli.gc_policy import age

if TYPE_CHECKING:
    from collections.abc import Sequence

FILTERS = "until=24h|TIMESTAMP, unused-for=7d, project=NAME, kind=step,base,fetch,mount,prepared"
TYPES = {
    "regular": ("step", "base"),
    "exec.cachemount": ("mount",),
    "source.git.checkout": ("fetch",),
}
"""docker's types and what they are called here. Of its others (source.local, frontend, internal) nothing is kept."""
_SECONDS = re.compile(r"[0-9]{9,11}(\.[0-9]{1,9})?")


def read_filters(texts: Sequence[str], command: str) -> Filters:
    """Several must all hold; of projects and kinds one. command: `cache prune`, for hints. Raises UsageError."""
    now = time.time()
    hint = f"it may be {FILTERS}; see buildgraph {command} --help"
    since: float | None = None
    projects: list[str] = []
    kinds: list[str] = []
    rules: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in ("until", "unused-for", "project", "kind", "type") or not equals:
            raise UsageError(f"--filter {text}: not a filter that is known", hint=hint)
        if not value:
            raise UsageError(f"--filter {text}: there is no value", hint=hint)
        if name == "project":
            projects.append(value)
            rules.append(f"of the project {value}")
        elif name in ("kind", "type"):
            for word in value.split(","):
                kinds += _kinds(name, word, command)
            rules.append(f"{name} {value}")
        else:
            moment = _moment(text, value, now, timestamps=name == "until", command=command)
            since = moment if since is None else min(since, moment)
            rules.append(f"not used {'since' if _is_timestamp(value) else 'for'} {value}")
    return Filters(since, tuple(projects), tuple(dict.fromkeys(kinds)), "pruned: " + ", ".join(rules) if rules else "")


def _kinds(name: str, word: str, command: str) -> tuple[str, ...]:
    """What a word means; docker's are good for both names."""
    if word in KINDS:
        return (word,)
    if word in TYPES:
        return TYPES[word]
    types = ", ".join(f"{docker} ({' and '.join(ours)})" for docker, ours in TYPES.items())
    hint = f"it may be {', '.join(KINDS)}, or docker's {types}; see buildgraph {command} --help"
    raise UsageError(f"--filter {name}={word}: there is no such kind", hint=hint)


def _moment(text: str, value: str, now: float, *, timestamps: bool, command: str) -> float:
    """Seconds since the epoch."""
    try:
        return now - age(value)
    except ValueError as error:
        if timestamps:
            if _SECONDS.fullmatch(value):
                return float(value)
            import datetime

            try:
                return datetime.datetime.fromisoformat(value).timestamp()
            except (ValueError, OverflowError):
                pass
        moment = ", or a time such as 2026-01-31T12:00" if timestamps else ""
        hint = f"write for example {text.partition('=')[0]}=24h; see buildgraph {command} --help"
        raise UsageError(f"--filter {text}: {error}{moment}", hint=hint) from None


def _is_timestamp(value: str) -> bool:
    try:
        age(value)
    except ValueError:
        return True
    return False
