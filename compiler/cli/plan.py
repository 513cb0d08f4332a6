"""`buildgraph plan`: show what a build would do, without doing it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem, UsageError
from cache.images import Images
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.cli.options import Parser, add_build_options, read_request
from compiler.cli.streams import say
from compiler.forecast import DEPENDS, MISS
from compiler.progress.text import printable_lines
from compiler.session import Session
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.changed import Changed
    from compiler.forecast import Forecast
    from compiler.team_build import TeamBuild

FORMATS = ("tree", "json", "dot", "mermaid", "html")
SEVERAL = ("tree", "json")
"""Formats that show several platforms one after the other; a picture is of one."""
WOULD_RUN = 10
"""The exit code of --exit-code if anything would run."""


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, with --exit-code WOULD_RUN if something would run; or an exception."""
    parser = Parser(prog="buildgraph plan", description="Show what a build would do, without doing it.")
    add_build_options(parser)
    parser.add_argument("--format", default="tree", choices=FORMATS, help="for people, for programs, or as a picture")
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="write there instead of to standard output")
    parser.add_argument("--exit-code", action="store_true", help=f"exit with {WOULD_RUN} if something would run")
    parser.add_argument(
        "--changed", action="append", default=[], metavar="PATH", help="what would run if this file were another"
    )
    parsed = parser.parse_args(arguments)
    request = read_request(parsed)
    if parsed.output:
        _require_directory(parsed.output)
    several = len(request.variants) > 1
    if several and parsed.format not in SEVERAL:
        raise UsageError(
            f"--format {parsed.format} shows one platform",
            hint=f"give one --platform; {' and '.join(SEVERAL)} show all",
        )
    changed: tuple[Changed, ...] = ()
    if parsed.changed:
        from compiler.changed import read_changed

        changed = read_changed(parsed.changed, request.definition, request.variants[0])
    store = LmdbStore(request.store)
    team: TeamBuild | None = None
    try:
        images = Images(store)
        library = LayerLibrary(store, images)
        if request.remote is not None:
            from compiler.remote_cache import RemoteCache
            from compiler.team_build import TeamBuild

            remote = RemoteCache(store, request.remote, _warn, trusted=request.fleet.trusted)
            team = TeamBuild(remote, lambda _: None)
            images, library = team.images, team.library
        believed = team.remote if team is not None else None
        sessions = [
            Session(store, request.definition, options, images, library, changed, believed)
            for options in request.variants
        ]
        if team is not None:
            team.look_up(sessions)
        plans = [(session, session.forecast(request.jobs)) for session in sessions]
        text = _render(plans, parsed.format, to_terminal=not parsed.output)
        # What the scan of the context found is worth keeping: the build that follows need not hash it again.
        store.commit(Batch(records=tuple(row for session, _ in plans for row in session.sources.records())))
        if team is not None:
            team.keep()
        if changed:
            from compiler.changed import notes

            # Beside the plan and not in it, whatever its format: it is nothing that a build would do.
            for note in notes([session for session, _ in plans], request.definition):
                sys.stderr.write(f"note: {printable_lines(note)}\n")
    finally:
        if team is not None:
            team.close()
        store.close()
    if parsed.output:
        from compiler.cli.outputs import write_file

        # Bytes of a Dockerfile that are no UTF-8 have no other way into a file.
        write_file(parsed.output, text.encode("utf-8", "replace").decode())
    else:
        say(text)
    return WOULD_RUN if parsed.exit_code and any(each.count(MISS) + each.count(DEPENDS) for _, each in plans) else 0


def _warn(text: str) -> None:
    sys.stderr.write(f"{printable_lines(f'WARNING: {text}')}\n")


def _render(plans: list[tuple[Session, Forecast]], name: str, *, to_terminal: bool) -> str:
    """plans: one a platform; of formats that are not in SEVERAL just one."""
    if name == "tree":
        trees = [_tree(*plan, to_terminal=to_terminal) for plan in plans]
        if len(plans) == 1:
            return trees[0]
        heads = [f"platform {session.options.platform}" for session, _ in plans]
        return "\n".join(f"{head}\n{'=' * len(head)}\n{tree}" for head, tree in zip(heads, trees, strict=True))
    if name == "json":
        from compiler.views import plan_json

        texts = [
            plan_json.render(forecast, session.graph.target, str(session.options.platform))
            for session, forecast in plans
        ]
        return texts[0] if len(texts) == 1 else plan_json.together(texts)
    session, forecast = plans[0]
    if name == "dot":
        from compiler.views import plan_dot

        return plan_dot.render(forecast, session.graph.target)
    if name == "mermaid":
        from compiler.views import plan_mermaid

        return plan_mermaid.render(forecast, session.graph.target)
    from compiler.views import plan_html

    return plan_html.render(session, forecast, time.time())


def _tree(session: Session, forecast: Forecast, *, to_terminal: bool) -> str:
    from compiler.views import plan_tree

    return plan_tree.render(
        forecast,
        session.graph.target,
        width=shutil.get_terminal_size((80, 24)).columns,
        now=time.time(),
        colour=to_terminal and sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        unicode=not to_terminal or "utf" in (sys.stdout.encoding or "").lower(),
    )


def _require_directory(path: str) -> None:
    """Raises EnvironmentProblem if there is no directory for the file: who looks at a plan wants nothing made."""
    directory = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(directory):
        raise EnvironmentProblem(
            f"cannot write to {path}: there is no directory {directory}", hint="make it first, or name another file"
        )
