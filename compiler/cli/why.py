"""`buildgraph why`: what decided that a step runs, or ran when it was last built."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from cache.errors import UsageError
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.cli.options import Parser, add_build_options, read_request
from compiler.cli.streams import say
from compiler.dockerfile.errors import did_you_mean
from compiler.forecast import DEPENDS, HIT, MISS
from compiler.line_place import line_number, step_at, trigger_at
from compiler.progress.text import age_text, printable
from compiler.reasons import Reason
from compiler.session import Session
from compiler.views import phrases
from compiler.why import Last, Miss, behind, last_build, last_miss
from worker.variation import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.build_record import BuildRecord
    from compiler.dockerfile.parser import Dockerfile
    from compiler.forecast import Outlook
    from compiler.graph import Graph, Node

VERSION = 1
SHOWN_DETAILS = 40
KEY_CHARS = 16


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parser = Parser(prog="buildgraph why", description="Say what decided that a step runs, or ran when last built.")
    parser.add_argument("node", metavar="NODE", help="a step as plan names it (build.3), or its line")
    add_build_options(parser)
    parser.add_argument("--last", action="store_true", help="of the last build only, not of the one that would come")
    parser.add_argument(
        "--against", default="", metavar="remote[:WHO|BUILD]", help="why the record of a colleague did not hit here"
    )
    parser.add_argument("--format", default="text", choices=("text", "json"), help="for people or for programs")
    parsed = parser.parse_args(arguments)
    request = read_request(parsed)
    if parsed.against:
        if parsed.last:
            raise UsageError("--last and --against exclude each other")
        from compiler.cli import why_against

        return why_against.run(parsed, request)
    store = LmdbStore(request.store)
    try:
        if len(request.variants) > 1:
            raise UsageError("why looks at one platform at a time", hint="give one --platform")
        team = None
        if request.remote is not None:
            from compiler.remote_cache import RemoteCache

            # Believed as ever, and not asked.
            team = RemoteCache(store, request.remote, lambda _: None, trusted=request.fleet.trusted)
        session = Session(store, request.definition, request.variants[0], team=team)
        node = find_node(session.graph, session.dockerfile, parsed.node)
        outlook = None
        if not parsed.last:
            outlooks = {each.node.id: each for each in session.forecast(request.jobs).outlooks}
            outlook = outlooks[node.id]
            if outlook.status == DEPENDS or outlook.same_as:
                cause = behind(session, outlooks, node)
                said = (f"since {cause.text}", *cause.details, *outlook.why.details)
                outlook = outlook._replace(why=outlook.why._replace(details=said))
        miss = last_miss(store, session.records, node.id)
        last = last_build(store, session.records, node.id)
        store.submit(Batch(records=tuple(session.sources.records())))
    finally:
        store.close()
    if parsed.format == "json":
        say(json.dumps(_document(node, outlook, miss, last), indent=2, ensure_ascii=False) + "\n")
    else:
        say(_text(node, outlook, miss, last))
    return 0


def find_node(graph: Graph, dockerfile: Dockerfile, text: str) -> Node:
    """A step by its id, by a line of its instruction, or a stage's last one by the stage's name. Raises UsageError."""
    steps = {node.id: node for node in graph if node.is_step}
    by_folded = {name.lower(): node for name, node in steps.items()}
    if text.lower() in by_folded:
        return by_folded[text.lower()]
    of_stage = [node for node in steps.values() if node.stage == text.lower()]
    line = line_number(text)
    if line is not None:
        # A stage without a name is called by its number, too; a line that holds a step goes first.
        try:
            name = step_at(dockerfile, line)
        except UsageError:
            if of_stage:
                return of_stage[-1]
            trigger = trigger_at(steps.values(), line)
            if trigger is not None:
                return trigger
            raise
        if name in steps:
            return steps[name]
        if not of_stage:
            raise UsageError(f"{name} in line {line} is no step of what is built", hint="--target STAGE builds another")
    if of_stage:
        return of_stage[-1]
    message = f"there is no step {text!r} in what is built{did_you_mean(text, steps)}"
    raise UsageError(message, hint="buildgraph plan lists the steps; a line of the Dockerfile does as well")


def header(node: Node) -> str:
    """The step, its instruction and its line."""
    line = f"  (line {printable(node.span.line_text)})" if node.span is not None else ""
    return f"{node.id}  {' '.join(printable(node.text).split())}{line}"


def _text(node: Node, outlook: Outlook | None, miss: Miss | None, last: Last | None) -> str:
    lines = [header(node)]
    if outlook is not None:
        lines += ["", *_planned(outlook)]
    elif last is not None and (miss is None or last.build.key != miss.build.key):
        # What follows is of an older build, or of none.
        lines += ["", f"  the last build ({_when(last.build)}) {_became(last)}"]
    if miss is not None and (outlook is None or outlook.status == HIT):
        lines += ["", *_last(miss)]
    elif miss is None and outlook is None:
        lines += ["", "  it did not run in any build that is remembered here"]
    return "\n".join([*lines, ""])


def _planned(outlook: Outlook) -> list[str]:
    text = printable(outlook.why.text)
    if outlook.same_as:
        lines = [f"  would not run: it is {text}"]
    elif outlook.result is not None:
        result = outlook.result
        when = f"{age_text(time.time() - result.made_at)} ago{phrases.where(outlook)}"
        found = "its recipe is known" if outlook.why.reason is Reason.SAME_RECIPE else text
        lines = [f"  cached: {found}; made {when} by {printable(result.made_by)}, took {result.seconds:.1f} s"]
    elif outlook.status == DEPENDS:
        then = {HIT: "it is cached", MISS: "it runs anyway"}.get(outlook.if_same, "")
        lines = [f"  depends: {text}; if that comes out as before, {then}" if then else f"  may run: {text}"]
    else:
        lines = [f"  {'would run' if outlook.status == MISS else 'cached'}: {text}"]
    lines += details(outlook.why.details)
    if UNKNOWN in outlook.varies:
        lines.append(f"  not deterministic: {phrases.UNSTEADY_SOMEWHERE}")
    elif outlook.varies:
        lines += ["  not deterministic: when it last ran twice on the same inputs, these differed:"]
        lines += details(outlook.varies)
    return [*lines, f"  recipe key {outlook.recipe_key[:KEY_CHARS]}…"]


def _last(miss: Miss) -> list[str]:
    build, node = miss.build, miss.node
    did = "ran" if node.status == "ran" else "failed"
    lines = [f"  {did} in the build of {_when(build)}: {printable(miss.why.text)}"]
    return [*lines, *details(miss.why.details), f"  recipe key {node.recipe[:KEY_CHARS]}…"]


def _when(build: BuildRecord) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(build.started))} by {printable(build.made_by)}"


def _became(last: Last) -> str:
    """What the last build did with the step, where it neither ran nor failed."""
    if last.node is not None and last.node.status == "cancelled":
        return "stopped before it had ended"
    if last.node is not None:
        return "took it from the cache"
    return "did without it" if last.build.ok else "failed before it came to it"


def details(texts: Sequence[str]) -> list[str]:
    """Lines below a sentence."""
    lines = [f"    {printable(text)}" for text in texts[:SHOWN_DETAILS]]
    more = len(texts) - SHOWN_DETAILS
    return [*lines, f"    … and {more} more (--format json has all)"] if more > 0 else lines


def _document(node: Node, outlook: Outlook | None, miss: Miss | None, last: Last | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": VERSION,
        "node": node.id,
        "instruction": node.text,
        "line": node.span.first_line if node.span is not None else None,
        "planned": None,
        "last_build": None,
        "last_miss": None,
    }
    if last is not None:
        found["last_build"] = {
            "build": last.build.key,
            "started": last.build.started,
            "made_by": last.build.made_by,
            "ok": last.build.ok,
            "status": None if last.node is None else last.node.status,
        }
    if outlook is not None:
        found["planned"] = {
            "status": outlook.status,
            "reason": outlook.why.reason.value,
            "explanation": outlook.why.text,
            "details": list(outlook.why.details),
            "if_same": outlook.if_same,
            "same_as": outlook.same_as,
            "like": outlook.like,
            "where": outlook.where,
            "varies": list(outlook.varies),
            "recipe_key": outlook.recipe_key,
        }
    if miss is not None:
        found["last_miss"] = {
            "build": miss.build.key,
            "started": miss.build.started,
            "made_by": miss.build.made_by,
            "status": miss.node.status,
            "reason": miss.why.reason.value,
            "explanation": miss.why.text,
            "details": list(miss.why.details),
            "recipe_key": miss.node.recipe,
            "compared_with": miss.node.before,
        }
    return found
