"""Settings: defaults from the environment and buildgraph.toml."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from cache.errors import EnvironmentProblem, UsageError

FILE = "buildgraph.toml"
KNOWN = {"store": str, "jobs": int, "progress": str, "platform": str}
"""Keys of buildgraph.toml and their types."""
JOBS_PER_CPU = 4
LEAST_JOBS = 8


class Settings(NamedTuple):
    """What an option is when it is not given."""

    store: str
    jobs: int
    progress: str
    platform: str


def load() -> Settings:
    """Environment first, then buildgraph.toml in the working directory, then what fits most. Raises UsageError."""
    file = _read(FILE)
    environment = os.environ
    progress = environment.get("BUILDGRAPH_PROGRESS") or environment.get("BUILDKIT_PROGRESS") or file.get("progress")
    return Settings(
        store=environment.get("BUILDGRAPH_STORE") or file.get("store") or default_store(),
        jobs=file.get("jobs") or max(LEAST_JOBS, JOBS_PER_CPU * (os.cpu_count() or 1)),
        progress=progress or "auto",
        platform=environment.get("DOCKER_DEFAULT_PLATFORM") or file.get("platform") or "",
    )


def default_store() -> str:
    """Root's is the machine's; everybody else has one of their own."""
    if os.geteuid() == 0:
        return "/var/lib/buildgraph"
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "buildgraph")


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}") from None
    import tomllib

    try:
        found = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    for name, value in found.items():
        if name not in KNOWN:
            raise UsageError(f"{path}: unknown key {name!r}", hint=f"known are {', '.join(KNOWN)}")
        if not isinstance(value, KNOWN[name]):
            raise UsageError(f"{path}: {name} is not a {KNOWN[name].__name__}")
    return found
