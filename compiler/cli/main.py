"""The entry point: finds the command, runs it, and turns failures into one message and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from cache.errors import BuildgraphError, UsageError, exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "build": "build an image from a Dockerfile",
    "plan": "show what a build would do, without doing it",
    "image": "list, push, export and remove images of the store",
    "cache": "show how much the store holds",
    "doctor": "check what this machine offers for builds",
}
INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""
TERMINATED = 143
"""128 + SIGTERM."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: everything stops as after Ctrl-C."""


def _terminate(*_: object) -> None:
    raise Terminated


def entry() -> None:
    """The `buildgraph` program."""
    code = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Whoever read this is gone; nobody is left to tell, and the interpreter must not try once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit code (docs/exit-codes in the README). Prints failures to stderr."""
    signal.signal(signal.SIGTERM, _terminate)
    # Short-lived and with few cycles: collecting the youngest objects every 700 would take 15 ms of 20,000 files.
    gc.set_threshold(100_000)
    try:
        return _run(list(arguments))
    except BuildgraphError as error:
        from compiler.cli.message import render

        sys.stderr.write(render(error))
        return exit_code(getattr(error, "cause", error))
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        return 1


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        from compiler.cli.version import version

        print(f"buildgraph {version()}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        from compiler.dockerfile.errors import did_you_mean

        raise UsageError(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}", hint="see buildgraph --help")
    # A file a command, imported when it is called: none pays for what another needs.
    command = __import__(f"compiler.cli.{name}", fromlist=["run"])
    code: int = command.run(arguments[1:])
    return code


def _help() -> str:
    lines = ["usage: buildgraph COMMAND …", ""]
    lines += ["Compiles Dockerfiles to a graph of steps, runs it and reuses every layer.", ""]
    lines += [f"  {name:8} {text}" for name, text in COMMANDS.items()]
    lines += ["", "buildgraph COMMAND --help says more about each."]
    return "\n".join(lines)
