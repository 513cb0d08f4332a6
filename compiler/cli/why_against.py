"""`buildgraph why NODE CONTEXT --against remote[:WHO|BUILD]`: why a colleague's record did not hit here."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from cache.build_record import TITLE_LIMIT
from cache.errors import UsageError
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from compiler.against import compare, parse_against
from compiler.cli.streams import say
from compiler.cli.why import KEY_CHARS, VERSION, details, find_node, header
from compiler.progress.text import printable, printable_lines
from compiler.remote_cache import RemoteCache
from compiler.session import Session

if TYPE_CHECKING:
    import argparse

    from compiler.against import Against
    from compiler.cli.options import Request
    from compiler.graph import Node

_DID = {"ran": "ran", "failed": "failed", "cached": "was cached", "cancelled": "was cancelled"}


def run(parsed: argparse.Namespace, request: Request) -> int:
    """Exit code 0, or an exception."""
    wanted = parse_against(parsed.against)
    if request.remote is None:
        hint = "name it with --remote URL, BUILDGRAPH_REMOTE, or url in [remote] of buildgraph.toml"
        raise UsageError("--against needs the team's cache, and none is set", hint=hint)
    if len(request.variants) > 1:
        raise UsageError("why looks at one platform at a time", hint="give one --platform")
    store = LmdbStore(request.store)
    try:
        # It is not contacted: what it promised earlier counts as known.
        known = RemoteCache(store, request.remote, lambda _: None, trusted=request.fleet.trusted)
        session = Session(store, request.definition, request.variants[0], team=known)
        node = find_node(session.graph, session.dockerfile, parsed.node)
        from cache.remote.client import Client
        from compiler.team_records import Team

        client = Client(request.remote)
        try:
            found = compare(session, node, Team(client), wanted)
        finally:
            client.close()
        recipe = session.keys.recipe(node.id)
        store.submit(Batch(records=tuple(session.sources.records())))
    finally:
        store.close()
    if parsed.format == "json":
        say(json.dumps(_document(node, recipe, found), indent=2, ensure_ascii=False) + "\n")
    else:
        say(_text(node, recipe, found))
    return 0


def _text(node: Node, recipe: str, found: Against) -> str:
    build, theirs = found.build, found.theirs
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(build.started))
    who = _one_line(build.made_by)
    lines = [
        header(node), "",
        f"  compared with {_one_line(theirs.id)} in the build of {when} by {who}, where it {_DID[theirs.status]}",
    ]  # fmt: skip
    if theirs.title != node.text[:TITLE_LIMIT]:
        lines.append(f"    {_one_line(theirs.title)}")
    if found.hit:
        made = f", made by {_one_line(found.made_by)}" if found.made_by else ""
        lines.append(f"  it hits: {_one_line(found.why.text)}{made}")
    else:
        lines.append(f"  no hit: {_one_line(found.why.text)}")
        lines += details(found.why.details)
        if "→" in "".join((found.why.text, *found.why.details)):
            lines.append(f"  (→ reads: {who}'s → yours)")
    if found.note:
        lines.append(f"  {_one_line(found.note)}")
    same = theirs.recipe == recipe
    lines.append(f"  recipe key {recipe[:KEY_CHARS]}…, theirs {'the same' if same else f'{_key(theirs.recipe)}…'}")
    return "\n".join([*lines, f"  build {_one_line(build.key)}", ""])


def _one_line(text: str) -> str:
    return " ".join(printable_lines(text).split())


def _key(text: str) -> str:
    return printable(text[:KEY_CHARS])


def _document(node: Node, recipe: str, found: Against) -> dict[str, Any]:
    build, theirs = found.build, found.theirs
    return {
        "version": VERSION,
        "node": node.id,
        "instruction": node.text,
        "line": node.span.first_line if node.span is not None else None,
        "recipe_key": recipe,
        "hit": found.hit or None,
        "reason": found.why.reason.value,
        "explanation": found.why.text,
        "details": list(found.why.details),
        "made_by": found.made_by or None,
        "note": found.note,
        "against": {
            "build": build.key,
            "made_by": build.made_by,
            "started": build.started,
            "project": build.project,
            "target": build.target,
            "platform": build.platform,
            "ok": build.ok,
            "node": theirs.id,
            "instruction": theirs.title,
            "status": theirs.status,
            "recipe_key": theirs.recipe,
        },
    }
