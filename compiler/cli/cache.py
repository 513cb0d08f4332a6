"""`buildgraph cache`: what the store holds, how well it serves, and how it is kept in order or emptied."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from cache.errors import EnvironmentProblem, UsageError
from cache.lmdb_store import LmdbStore
from cache.run_dir import remove_tree, sweep
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.cli.streams import say
from compiler.progress.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

ACTIONS = {
    "du": "what takes how much: by kind, project or image",
    "prune": "remove what is not needed, or worth least",
    "verify": "read everything again, and say what is wrong",
    "stat": "how much of what was built came from the cache",
    "export": "copy all of it to a directory or a tar, also while it is in use",
    "import": "make a new store out of such a copy",
    "clear": "remove all of it",
}
_PARTS = (
    "blobs", "data.mdb", "leases", "lock.mdb", "mounts", "readers", "runs", "secret-key", "snapshots",
)  # fmt: skip


def run(arguments: Sequence[str]) -> int:
    """The exit code, or an exception."""
    parser = Parser(prog="buildgraph cache", description="Show what the store holds, keep it in order, or empty it.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in ACTIONS.items():
        one = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        one.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
        if name != "clear":
            _command(name).add_options(one)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        # Said by the action's own parser, so that the hint names the help that has the answer.
        actions.choices[parsed.action].error(f"unrecognized arguments: {' '.join(unknown)}")
    directory = os.path.abspath(parsed.store or settings.load().store)
    if parsed.action == "clear":
        _clear(directory)
        return 0
    return _run(parsed, directory)


def _run(parsed: argparse.Namespace, directory: str) -> int:
    command = _command(parsed.action)
    if not _is_store(directory):
        # Who only looks makes none; that there is nothing is no failure.
        document: str = command.run_without_store(directory, parsed)
        say(document + "\n" if document else f"there is no store at {printable(directory)} yet\n")
        return 0
    if os.geteuid() != 0 and command.TOUCHES_FILES_OF_STEPS and _has_files_of_steps(directory):
        # Who only looks is told what can be seen.
        with contextlib.suppress(*(() if parsed.action == "prune" else (EnvironmentProblem,))):
            _become_owner()
    store = LmdbStore(directory)
    try:
        code: int = command.run(store, parsed)
    finally:
        store.close()
    return code


def _is_store(directory: str) -> bool:
    """Whether there is one; of what may not be looked at, opening it says what is wrong."""
    try:
        os.stat(os.path.join(directory, "data.mdb"))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _command(name: str) -> Any:
    """The module of a subcommand, imported when it is called."""
    return __import__(f"compiler.cli.cache_{name}", fromlist=["run"])


def _has_files_of_steps(directory: str) -> bool:
    return any(os.path.isdir(os.path.join(directory, name)) for name in ("mounts", "snapshots"))


def _become_owner() -> None:
    """Steps made files that belong to the user's subordinate ids; only inside of the namespace may they be removed."""
    from worker.namespaces import enter_user_namespace

    enter_user_namespace()


def _clear(directory: str) -> None:
    """Remove everything that a store consists of, nothing else in its directory. Raises EnvironmentProblem."""
    if not os.path.exists(os.path.join(directory, "data.mdb")):
        raise UsageError(f"{directory} is no store")
    if os.geteuid() != 0:
        _become_owner()
    sweep(directory)
    runs = os.path.join(directory, "runs")
    if os.path.isdir(runs) and os.listdir(runs):
        what = f"a build or a server is using the store {directory}"
        raise EnvironmentProblem(what, hint="try again when it has ended")
    names = [name for name in os.listdir(directory) if name in _PARTS or name.startswith("seccomp-")]
    try:
        for name in names:
            remove_tree(os.path.join(directory, name))
    except OSError as error:
        raise EnvironmentProblem(f"cannot remove {error.filename or directory}: {error.strerror}") from None
