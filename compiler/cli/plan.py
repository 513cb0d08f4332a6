"""`buildgraph plan`: show what a build would do, without doing it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cache.errors import UsageError
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.cli.options import Parser, add_build_options, read_request
from compiler.cli.streams import say
from compiler.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence


FORMATS = ("tree", "json")


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parser = Parser(prog="buildgraph plan", description="Show what a build would do, without doing it.")
    add_build_options(parser)
    parser.add_argument("--format", default="tree", choices=FORMATS, help="for people or for programs")
    parsed = parser.parse_args(arguments)
    request = read_request(parsed)
    store = LmdbStore(request.store)
    try:
        if len(request.variants) > 1:
            raise UsageError("plan shows one platform at a time", hint="give one --platform")
        session = Session(store, request.definition, request.variants[0])
        forecast = session.forecast(request.jobs)
        if parsed.format == "json":
            from compiler.views import plan_json

            text = plan_json.render(session, forecast)
        else:
            from compiler.views import plan_tree

            text = plan_tree.render(session, forecast, colour=_colour())
        # What the scan of the context found is worth keeping: the build that follows need not hash it again.
        store.submit(Batch(records=tuple(session.sources.records())))
    finally:
        store.close()
    say(text)
    return 0


def _colour() -> bool:
    import os

    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
