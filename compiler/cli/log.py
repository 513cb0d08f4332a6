"""`buildgraph log`: show what a step printed, also one that was cached."""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

from cache.blob_stream import open_blob
from cache.errors import UsageError
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from compiler.cli import settings
from compiler.cli.options import MAX_DOCKERFILE, NAMES, Parser
from compiler.cli.remote_options import add_remote_options, remote_settings
from compiler.cli.streams import require_output, say
from compiler.definition_file import definition_file, file_key
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.line_place import line_number, step_at
from compiler.progress.coloured import Coloured
from compiler.progress.text import printable, size_text
from compiler.step_log import (
    LEAST_DIGITS,
    SHORT_HINT,
    find_by_key,
    find_in_build,
    is_key,
    is_short,
    last_build,
    require_kept,
)
from compiler.text_file import read_text_file
from compiler.views.phrases import cut, one_line, seconds_phrase

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cache.build_record import BuildRecord
    from cache.remote_settings import RemoteSettings
    from compiler.step_log import StepLog

_PIECE = 1 << 20
_LINE = 64 << 10
"""Bytes of a line that are cleaned for a terminal at once."""
WORDS = {"cached": "CACHED, log", "kept": "log", "ran": "ran", "failed": "failed", "cancelled": "cancelled"}


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parsed = _parser().parse_args(arguments)
    if (parsed.list or _is_place(parsed.node)) and parsed.context is None:
        parsed.node, parsed.context = None, parsed.node
    context = parsed.context or "."
    defaults = settings.load(None if context == "-" else context)
    store = LmdbStore(parsed.store or defaults.store)
    try:
        if parsed.node is None or parsed.list:
            say(_table(_require_build(store, parsed, context, defaults.platform)))
        else:
            _show(store, _find(store, parsed, context, defaults.platform), remote_settings(parsed, defaults.remote))
    finally:
        store.close()
    return 0


def _parser() -> Parser:
    parser = Parser(prog="buildgraph log", description="Show what a step printed, also one that was cached.")
    parser.add_argument(
        "node",
        nargs="?",
        metavar="NODE|KEY",
        help="a step of the last build (build.3), its line, or the beginning of its key",
    )
    parser.add_argument("context", nargs="?", metavar="CONTEXT", help="what was built (default: .)")
    parser.add_argument("-f", "--file", help="its Dockerfile (default: CONTEXT/Dockerfile)")
    parser.add_argument("--target", default="", help="the last build of this stage (default: of any)")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="the last build for it")
    parser.add_argument(
        "--build-context", action="append", default=[], metavar="NAME=VALUE",
        help="as in build, so that its line can be used again; a log is found without it",
    )
    parser.add_argument("--list", action="store_true", help="list the steps of the last build; so does no NODE")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    add_remote_options(parser)
    return parser


def _is_place(word: str | None) -> bool:
    """Whether a word is a context rather than a step."""
    return word is not None and (word in (".", "..", "-") or "/" in word)


def _find(store: LmdbStore, parsed: argparse.Namespace, context: str, platform: str) -> StepLog:
    """A step that is called like the beginning of a key is meant if there is one, then one at that line."""
    build = _build(store, parsed, context, platform)
    if build is None or build.node(parsed.node) is None:
        by_key = find_by_key(store, parsed.node)
        if by_key is not None:
            return by_key
    name = _at_line(parsed, context, build)
    if name is None and is_key(parsed.node):
        raise UsageError(
            f"there is no step with this name or line, and none with a key that begins with {parsed.node}",
            hint="buildgraph log --list shows the steps of the last build; plan --format json has keys",
        )
    return find_in_build(store, build or _require_build(store, parsed, context, platform), name or parsed.node)


def _at_line(parsed: argparse.Namespace, context: str, build: BuildRecord | None) -> str | None:
    """The id of the step at the line that the node may be; None if it is none. Raises UsageError, DockerfileError."""
    line = line_number(parsed.node)
    path = _dockerfile(context, parsed.file) if os.path.isdir(context) else None
    text = None if line is None or path is None else read_text_file(path, MAX_DOCKERFILE)
    if line is None or path is None or text is None:
        return None
    try:
        return step_at(parse_dockerfile(Source.from_bytes(path, text)), line)
    except UsageError as error:
        # A stage without a name is called by its number, too; and so many digits are a key that is not there.
        if is_key(parsed.node):
            return None
        if build is not None and any(each.id.rpartition(".")[0] == parsed.node for each in build.nodes):
            return None
        if is_short(parsed.node):
            raise UsageError(error.message, hint=f"{error.hint}; {SHORT_HINT}".removeprefix("; ")) from None
        raise


def _require_build(store: LmdbStore, parsed: argparse.Namespace, context: str, platform: str) -> BuildRecord:
    build = _build(store, parsed, context, platform)
    if build is None:
        target = f" with target {parsed.target}" if parsed.target else ""
        hint = f"name what was built, its Dockerfile with -f, or {LEAST_DIGITS} digits or more of a key"
        raise UsageError(f"no build of {context}{target} is remembered", hint=hint)
    return build


def _build(store: LmdbStore, parsed: argparse.Namespace, context: str, platform: str) -> BuildRecord | None:
    """The last build of what the command line names, in the words that `Definition` has for it."""
    from compiler.git_words import is_git
    from compiler.steps import is_url

    words = parsed.platform or platform.partition(",")[0]
    for_platform = Platform.parse(words) if words else Platform.here()
    file = None if parsed.file == "-" else parsed.file
    if context == "-":
        name = definition_file(None, None, for_platform)
    elif is_git(context) or is_url(context):
        name = definition_file(None, file, for_platform, context)
    elif parsed.file == "-":
        name = definition_file(context, None, for_platform)
    else:
        path = _dockerfile(context, file)
        name = definition_file(context, os.path.realpath(path or os.path.join(context, NAMES[0])), for_platform)
    return last_build(store, file_key(name), parsed.target)


def _dockerfile(context: str, file: str | None) -> str | None:
    """Where the Dockerfile lies; None if it is not a file."""
    if file is not None:
        return None if file == "-" else file
    return next(filter(os.path.exists, (os.path.join(context, name) for name in NAMES)), None)


def _show(store: LmdbStore, found: StepLog, remote: RemoteSettings | None) -> None:
    fetched = None
    if remote is not None and found.log is not None and not store.has_blob(found.log):
        from compiler.remote_log import read_remote_log

        fetched = read_remote_log(store, remote, found.log)
    if fetched is None:
        require_kept(store, found)
    require_output()
    header = f"{found.name}: {WORDS[found.status]}{_when(found)}"
    if found.seconds:
        header += f", took {seconds_phrase(found.seconds)}"
    sys.stderr.write(f"{one_line(header)}\n")
    if found.log is None:
        sys.stderr.write("it printed nothing\n")
        return
    sys.stderr.flush()
    with io.BytesIO(fetched) if fetched is not None else open_blob(store, found.log) as file:
        if not sys.stdout.isatty():
            while data := file.read(_PIECE):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        lines = Coloured(colour="NO_COLOR" not in os.environ)
        try:
            while line := file.readline(_LINE):
                sys.stdout.write(lines.clean(line.decode("utf-8", "replace").removesuffix("\n")))
                sys.stdout.write("\n")
        finally:
            sys.stdout.write(lines.end())
            sys.stdout.flush()


def _when(found: StepLog) -> str:
    if not found.time:
        return ""
    form = "%Y-%m-%d %H:%M:%S"
    if found.status in ("cached", "kept"):
        by = f" by {found.made_by}" if found.made_by else ""
        return f" from {time.strftime(form, time.localtime(found.time))}{by}"
    if time.strftime("%Y-%m-%d", time.localtime(found.time)) == time.strftime("%Y-%m-%d"):
        form = "%H:%M:%S"
    return f" {time.strftime(form, time.localtime(found.time))}"


def _table(build: BuildRecord) -> str:
    """The steps of a build in the order in which they ended."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(build.started))
    how = "built" if build.ok else "not finished"
    lines = [f"{build.project} ({build.platform}), {how} {when} in {seconds_phrase(build.seconds)}"]
    width = max((len(node.id) for node in build.nodes), default=0)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for node in build.nodes:
        seconds = seconds_phrase(node.seconds) if node.seconds else ""
        size = "-" if node.log is None else size_text(node.log.size)
        line = f"  {node.id:{width}}  {node.status:9}  {seconds:>12}  {size:>8}  {one_line(node.title)}"
        lines.append(cut(line, columns) if columns else line)
    return "".join(f"{printable(line)}\n" for line in lines)
