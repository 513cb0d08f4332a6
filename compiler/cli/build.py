"""`buildgraph build`: build an image and put it where it is wanted."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from cache.errors import BuildgraphError, UsageError
from cache.lmdb_store import LmdbStore
from cache.reference import Reference
from compiler.build import Builder
from compiler.cli.options import Parser, Request, add_build_options, read_request
from compiler.cli.streams import require_output, say
from compiler.failure import Contradicted
from compiler.progress.events import Ended, Reporter, Task, Warned
from compiler.progress.open import MODES, open_reporter
from compiler.progress.rawjson import RawJsonReporter
from compiler.remote_cache import LayerGone, RemoteCache
from compiler.trace.endpoints import ENDPOINTS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from compiler.build import Built
    from compiler.cli.outputs import Delivered
    from compiler.export.output import Output

T = TypeVar("T")

MOST_TURNS = 10
"""How often a build is made because layers are gone that were promised; each turn promises fewer, the last two none."""


def _parser() -> Parser:
    parser = Parser(prog="buildgraph build", description="Build an image from a Dockerfile.")
    add_build_options(parser)
    parser.add_argument("-t", "--tag", action="append", default=[], metavar="NAME", help="name of the image")
    parser.add_argument("-o", "--output", action="append", default=[], metavar="type=TYPE,dest=PATH", help="where to")
    parser.add_argument("--push", action="store_true", help="push to the registry of each tag")
    parser.add_argument("--load", action="store_true", help="load into docker or podman")
    parser.add_argument("--iidfile", metavar="FILE", help="write the image's id to a file")
    parser.add_argument("--metadata-file", metavar="FILE", help="write digests and names as JSON to a file")
    parser.add_argument("--trace", default="", metavar="FILE", help="write what ran when and where, for Perfetto")
    parser.add_argument("--progress", default="", choices=("", *MODES), help="how to show what happens")
    parser.add_argument("--check", action="store_true", help="check the Dockerfile and build nothing")
    parser.add_argument("--call", default="build", metavar="METHOD", help="check, outline or targets[,format=json]")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but the image's id")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parsed = _parser().parse_args(arguments)
    request = read_request(parsed)
    if parsed.check or parsed.call != "build":
        from compiler.cli.check import call

        return call("check" if parsed.check else parsed.call, request)
    tags = tuple(Reference.parse(tag) for tag in parsed.tag)
    if any(tag.digest for tag in tags):
        raise UsageError("-t takes a name with a tag, not with a digest")
    if (parsed.push or parsed.load) and not tags:
        raise UsageError("--push and --load need a name: -t NAME")
    mode = "quiet" if parsed.quiet else parsed.progress or request.progress
    from compiler.cli.outputs import read_outputs

    outputs = read_outputs(parsed, tags)
    if mode == "quiet" or any(output.dest == "-" for output in outputs):
        require_output()
    store = LmdbStore(request.store)
    try:
        reporter = view = open_reporter(mode, sys.stderr)
        try:
            if parsed.trace or any(os.environ.get(name) for name in ENDPOINTS):
                from compiler.trace.tracing import traced

                reporter = traced(view, parsed.trace, os.environ)
            # Only programs are told of the end of what never began.
            tell_end = isinstance(view, RawJsonReporter)
            delivered = _build(store, request, parsed, tags, outputs, reporter, tell_end=tell_end)
        finally:
            reporter.close()
    except BaseException:
        _close_quietly(store)
        raise
    store.close()
    if mode == "quiet" and not delivered.used_stdout:
        say(f"{delivered.image_id}\n")
    return 0


def _build(
    store: LmdbStore,
    request: Request,
    parsed: argparse.Namespace,
    tags: tuple[Reference, ...],
    outputs: list[Output],
    reporter: Reporter,
    *,
    tell_end: bool,
) -> Delivered:
    from compiler.checks.during_build import build_warnings, refuse_early
    from compiler.cli.outputs import deliver

    started = time.monotonic()
    remote = None
    if request.remote is not None:
        fleet = request.fleet
        settings = request.remote._replace(patience=fleet.patience)
        remote = RemoteCache(store, settings, lambda text: reporter.report(Warned(text)), trusted=fleet.trusted)
    builder = Builder(store, reporter, request.jobs, remote, request.fleet)

    def make() -> tuple[list[Built], Delivered]:
        rewritten = request.variants[0].source_date_epoch is not None
        # A registry may have all that it is to get.
        files = any(output.type not in ("image", "registry") for output in outputs)
        built = builder.build(request.definition, request.variants, takes_out=files or parsed.load or rewritten)
        if outputs or parsed.load or rewritten:
            builder.prepare_outputs(built)
        return built, deliver(built, outputs, tags, parsed, reporter)

    try:
        refuse_early(store, request.definition, request.variants)
        built, delivered = _until_there(make, builder.leave_remote)
        warnings = build_warnings([each.session for each in built], request.definition)
        builder.publish(ok=True)
        if builder.ran:
            _clean_up(store, request, reporter)
    except BaseException as error:
        if isinstance(error, BuildgraphError):
            with contextlib.suppress(BuildgraphError):  # what went wrong before is what is to be told
                builder.publish(ok=False)
        # What went wrong is printed once, at the very end and in full.
        if builder.announced or tell_end:
            reporter.report(Ended(False, time.monotonic() - started, "", builder.hits, len(builder.ran), ""))
        raise
    finally:
        builder.close()
    for text in warnings:
        reporter.report(Warned(text))
    reporter.report(Ended(True, time.monotonic() - started, delivered.image_id, builder.hits, len(builder.ran), ""))
    return delivered


def _until_there(make: Callable[[], T], leave_remote: Callable[[], None]) -> T:
    """Make it; again if a layer that the cache server promised is not there, or what was known turns out not to hold.
    Raises one of these in the end, if the server could not be left."""
    for turn in range(MOST_TURNS - 1):
        if turn == MOST_TURNS - 2:
            leave_remote()
        with contextlib.suppress(LayerGone, Contradicted):
            return make()
    return make()


def _clean_up(store: LmdbStore, request: Request, reporter: Reporter) -> None:
    """Keep the store within its limits; of a build that ran nothing it did not grow."""
    from cache.collect import collect_after_build
    from compiler.cli.gc_policy import gc_policy

    began = time.monotonic()
    line = collect_after_build(store, gc_policy(request.gc, store.directory))
    if line is not None:
        reporter.report(Task(line, "done", time.monotonic() - began))


def _close_quietly(store: LmdbStore) -> None:
    """Keep what finished; a store that cannot be written is not the failure to report if there was one before."""
    try:
        store.close()
    except BuildgraphError:
        return
