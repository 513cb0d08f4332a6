"""Settings: defaults from the environment and buildgraph.toml."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.errors import UsageError
from compiler.text_file import read_text_file

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "buildgraph.toml"
KNOWN = {
    "store": str, "jobs": int, "local-slots": int, "progress": str, "platform": str, "gc": dict, "serve": dict,
    "remote": dict,
}  # fmt: skip
"""Keys of buildgraph.toml and their types."""
MAX_FILE = 64 << 10
"""Bytes of buildgraph.toml."""
JOBS_PER_CPU = 4
LEAST_JOBS = 8
MAX_JOBS = 10_000
"""Steps at the same time; each has a thread."""


class Settings(NamedTuple):
    """What an option is when it is not given. gc, serve, remote: tables as the file has them, see
    `gc_policy`, `serve_options`, `remote_options`. local_slots: see `FleetChoice`."""

    store: str
    jobs: int
    progress: str
    platform: str
    gc: Mapping[str, Any]
    serve: Mapping[str, Any] = {}
    remote: Mapping[str, Any] = {}
    local_slots: int | None = None


def load(context: str | None = None) -> Settings:
    """Environment first, then buildgraph.toml in the working directory, then what fits most. Raises UsageError.

    context: the directory that is built, None for none.
    """
    file = _read(FILE, context)
    environment = os.environ
    progress = environment.get("BUILDGRAPH_PROGRESS") or environment.get("BUILDKIT_PROGRESS") or file.get("progress")
    return Settings(
        store=environment.get("BUILDGRAPH_STORE") or file.get("store") or default_store(),
        jobs=file.get("jobs") or max(LEAST_JOBS, JOBS_PER_CPU * (os.cpu_count() or 1)),
        progress=progress or "auto",
        platform=environment.get("DOCKER_DEFAULT_PLATFORM") or file.get("platform") or "",
        gc=file.get("gc", {}),
        serve=file.get("serve", {}),
        remote=file.get("remote", {}),
        local_slots=file.get("local-slots"),
    )


def default_store() -> str:
    """Root's is the machine's; everybody else has one of their own."""
    if os.geteuid() == 0:
        return "/var/lib/buildgraph"
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "buildgraph")


def _read(path: str, context: str | None) -> dict[str, Any]:
    """What the file says, as far as whoever wrote it may say it."""
    owner = 0
    distrust = ""

    def accept(status: os.stat_result) -> bool:
        nonlocal owner, distrust
        owner = status.st_uid
        if owner not in (os.geteuid(), 0):
            distrust = "it belongs to another user"
        elif status.st_mode & 0o002:
            distrust = "everybody may write it"
        return not distrust

    data = read_text_file(path, MAX_FILE, accept)
    if distrust:
        _warn(f"{path} is ignored: {distrust}")
    if data is None:
        return {}
    import tomllib

    try:
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path}: {reason}") from None
    for name, value in found.items():
        _check(path, name, value)
    for name in ("store", "gc", "remote"):
        if name in found and owner != os.geteuid() and context is not None and _is_within(path, context):
            # A checkout must not choose where on this machine something is written, what is removed, who is believed.
            _warn(f"{name} in {path} is ignored: the file is part of the context and belongs to another user")
            del found[name]
    return found


def _check(path: str, name: str, value: object) -> None:
    if name not in KNOWN:
        raise UsageError(f"{path}: unknown key {name!r}", hint=f"known are {', '.join(KNOWN)}")
    kind = KNOWN[name]
    if name == "remote":
        from compiler.cli.remote_options import check_remote

        check_remote(path, value)
        return
    if name == "serve":
        from compiler.cli.serve_options import check_serve

        check_serve(path, value)
        return
    if kind is dict:
        from compiler.cli.gc_policy import check_gc

        check_gc(path, value)
        return
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UsageError(f"{path}: {name} is not {'a number' if kind is int else 'a text'}")
    least = 0 if name == "local-slots" else 1
    if isinstance(value, int) and not least <= value <= MAX_JOBS:
        raise UsageError(f"{path}: {name} must be from {least} to {MAX_JOBS}")
    if isinstance(value, str) and (not value or "\0" in value):
        raise UsageError(f"{path}: {name} is {'empty' if not value else 'no text that can be used: it holds a NUL'}")


def _is_within(path: str, directory: str) -> bool:
    top = os.path.realpath(directory)
    return os.path.commonpath([os.path.realpath(path), top]) == top


def _warn(text: str) -> None:
    sys.stderr.write(f"WARNING: {text}\n")
