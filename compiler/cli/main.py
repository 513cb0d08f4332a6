"""The entry point: finds the command, runs it, and turns failures into one message and an exit code."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing, or anything else here, takes milliseconds in which Ctrl-C is a traceback
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.errors import BuildgraphError

COMMANDS = {
    "build": "build an image from a Dockerfile",
    "plan": "show what a build would do, without doing it",
    "why": "say what decided that a step runs, or ran",
    "log": "show what a step printed, also one that was cached",
    "check": "say what a Dockerfile could do better, without building it",
    "image": "list, push, export and remove images of the store",
    "cache": "show, prune and verify what the store holds",
    "serve": "share a store with a team, over the network",
    "worker": "take steps of a team's builds from its server, and run them here",
    "fleet": "show the workers of a team's server, and what they do",
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
    try:
        from compiler.cli import streams

        # Before anything is opened: it would get the number of a standard stream that is closed.
        streams.prepare()
        code = main(sys.argv[1:])
        streams.finish()
    except KeyboardInterrupt as interrupt:
        # While an earlier one was being dealt with, or before anything began.
        os._exit(TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED)
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit code (docs/exit-codes in the README). Prints failures to stderr."""
    import gc
    import signal

    from cache.errors import BuildgraphError, EnvironmentProblem

    try:
        signal.signal(signal.SIGTERM, _terminate)
        # Short-lived and with few cycles: collecting the youngest objects every 700 would take 15 ms of 20,000 files.
        gc.set_threshold(100_000)
        return _run(list(arguments))
    except BuildgraphError as error:
        return _fail(error)
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except OSError as error:
        # Those with a better message are caught where they happen.
        what = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return _fail(EnvironmentProblem(f"{what}{error.strerror or error}"))


def _fail(error: BuildgraphError) -> int:
    from cache.errors import exit_code
    from compiler.cli.message import render

    sys.stderr.write(render(error))
    return exit_code(getattr(error, "cause", error))


def _run(arguments: list[str]) -> int:
    from cache.errors import UsageError
    from compiler.cli.streams import say

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(_help())
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        from compiler.cli.version import version

        say(f"buildgraph {version()}\n")
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
    lines += ["", "buildgraph COMMAND --help says more about each.", ""]
    return "\n".join(lines)
