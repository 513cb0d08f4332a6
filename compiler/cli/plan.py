"""`buildgraph plan`: show what a build would do, without doing it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

from cache.errors import UsageError
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.cli.options import Parser, add_build_options, read_request
from compiler.cli.streams import say
from compiler.forecast import DEPENDS, MISS
from compiler.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.forecast import Forecast

FORMATS = ("tree", "json", "dot", "mermaid", "html")
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
    context = request.definition.context
    changed = tuple(_below(path, context) for path in parsed.changed)
    store = LmdbStore(request.store)
    try:
        if len(request.variants) > 1:
            raise UsageError("plan shows one platform at a time", hint="give one --platform")
        session = Session(store, request.definition, request.variants[0], changed=changed)
        forecast = session.forecast(request.jobs)
        text = _render(session, forecast, parsed.format, to_terminal=not parsed.output)
        # What the scan of the context found is worth keeping: the build that follows need not hash it again.
        store.commit(Batch(records=tuple(session.sources.records())))
    finally:
        store.close()
    if parsed.output:
        from compiler.cli.outputs import write_file

        # Bytes of a Dockerfile that are no UTF-8 have no other way into a file.
        write_file(parsed.output, text.encode("utf-8", "replace").decode())
    else:
        say(text)
    return WOULD_RUN if parsed.exit_code and forecast.count(MISS) + forecast.count(DEPENDS) else 0


def _render(session: Session, forecast: Forecast, name: str, *, to_terminal: bool) -> str:
    if name == "tree":
        from compiler.views import plan_tree

        return plan_tree.render(
            forecast,
            session.graph.target,
            width=shutil.get_terminal_size((80, 24)).columns,
            now=time.time(),
            colour=to_terminal and sys.stdout.isatty() and "NO_COLOR" not in os.environ,
            unicode=not to_terminal or "utf" in (sys.stdout.encoding or "").lower(),
        )
    if name == "json":
        from compiler.views import plan_json

        return plan_json.render(forecast, session.graph.target, str(session.options.platform))
    if name == "dot":
        from compiler.views import plan_dot

        return plan_dot.render(forecast, session.graph.target)
    if name == "mermaid":
        from compiler.views import plan_mermaid

        return plan_mermaid.render(forecast, session.graph.target)
    from compiler.views import plan_html

    return plan_html.render(session, forecast, time.time())


def _below(path: str, context: str | None) -> str:
    """A path of --changed relative to the context: seen from the working directory if it lies there, else from the
    context. Raises UsageError."""
    if context is None:
        raise UsageError("--changed needs a context that is a directory")
    top = os.path.realpath(context)
    for start in (os.getcwd(), top):
        found = os.path.normpath(os.path.join(os.path.realpath(start), path))
        inside = found == top or found.startswith(f"{top}/")
        if inside and (start == top or os.path.lexists(found)):
            return os.path.relpath(found, top) if found != top else ""
    raise UsageError(f"--changed {path}: it is not in the context {context}")
