"""`buildgraph fleet`: the workers of a team's server, what they do and what waits; why an action went where it did."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from cache.build_record import newest_builds
from cache.errors import UsageError
from cache.lmdb_store import LmdbStore
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.cli.remote_options import add_remote_options, remote_settings
from compiler.cli.streams import say
from compiler.cli.table import table
from compiler.progress.text import age_text, printable, seconds_text, size_text
from compiler.step_log import LEAST_DIGITS, is_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cache.remote_settings import RemoteSettings
    from compiler.fleet.asking import FleetClient

KEY_CHARS = 12
"""Of a content key, as `why` shows it; all commands take so much."""
TEXT_CHARS = 60
SECOND = 1.0
"""Between two pictures of a fleet in which nothing happens: the times go on."""


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "why": _why, "cordon": _cordon, "uncordon": lambda rest: _cordon(rest, off=True)
    }  # fmt: skip
    if arguments and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:])
    parser = Parser(
        prog="buildgraph fleet", description="Show the workers of a fleet. Also: fleet why, cordon, uncordon."
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="once, also on a terminal")
    parser.add_argument("--format", default="table", choices=("table", "json"), help="for people or for programs")
    add_remote_options(parser, namespaces=False)
    parsed = parser.parse_args(list(arguments))
    client = _client(parsed)
    try:
        live = sys.stdout.isatty() and not parsed.once and parsed.format == "table"
        _show(client, live=live, as_json=parsed.format == "json")
    finally:
        client.close()
    return 0


def _why(arguments: Sequence[str]) -> int:
    parser = Parser(prog="buildgraph fleet why", description="Say what the scheduler decided about an action, and why.")
    parser.add_argument(
        "action", metavar="ACTION", help="its content key, the beginning of that, or a step of the last build (build.3)"
    )
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    parser.add_argument("--format", default="table", choices=("table", "json"), help="for people or for programs")
    add_remote_options(parser)
    parsed = parser.parse_args(list(arguments))
    client = _client(parsed)
    try:
        from compiler.fleet.asking import explained_json

        found = explained_json(client.explain(_key(parsed)))
    finally:
        client.close()
    say(json.dumps(found, indent=2) + "\n" if parsed.format == "json" else _decisions(found))
    return 0


def _key(parsed: Any) -> str:
    """The key, also of a step of the newest build here that has one of that name. Raises UsageError."""
    text: str = parsed.action
    if is_key(text):
        return text.lower()
    store = LmdbStore(parsed.store or settings.load().store)
    try:
        for build in newest_builds(store):
            node = build.node(text) or build.node(text.lower())
            if node is not None and node.content:
                return node.content
    finally:
        store.close()
    hint = f"name one as `buildgraph log --list` does, or give {LEAST_DIGITS} digits or more of a key"
    raise UsageError(f"there is no step {text!r} in any build that is remembered here", hint=hint)


def _cordon(arguments: Sequence[str], off: bool = False) -> int:
    name = "uncordon" if off else "cordon"
    does = "takes actions again" if off else "finishes what it has and takes nothing new"
    parser = Parser(prog=f"buildgraph fleet {name}", description=f"Have it that a worker {does}.")
    parser.add_argument("worker", metavar="WORKER", help="its name")
    add_remote_options(parser, namespaces=False)
    parsed = parser.parse_args(list(arguments))
    client = _client(parsed)
    try:
        client.cordon(parsed.worker, off=off)
    finally:
        client.close()
    say(f"{printable(parsed.worker)} {does}\n")
    return 0


def _client(parsed: Any) -> FleetClient:
    remote: RemoteSettings | None = remote_settings(parsed, settings.load().remote)
    if remote is None:
        hint = "name it with --remote URL, BUILDGRAPH_REMOTE, or url in [remote] of buildgraph.toml"
        raise UsageError("a fleet belongs to a server, and none is set", hint=hint)
    from compiler.fleet.asking import FleetClient

    return FleetClient(remote)


def _show(client: FleetClient, *, live: bool, as_json: bool) -> None:
    from compiler.fleet.asking import aged, state_json

    if not live:
        for state in client.states(once=True):
            found = state_json(state)
            say(json.dumps(found, indent=2) + "\n" if as_json else _text(found))
        return
    shown: tuple[dict[str, Any], float] | None = None
    for came in client.live_states(SECOND):
        if came is not None:
            shown = state_json(came), time.monotonic()
        if shown is not None:
            _draw(_text(aged(shown[0], time.monotonic() - shown[1])))


def _draw(text: str) -> None:
    columns, rows = shutil.get_terminal_size()
    lines = [line[: columns - 1] for line in text.split("\n")[: rows - 1]]
    say("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")


def _text(state: Mapping[str, Any]) -> str:
    workers = state["workers"]
    waits = f"{state['queue_length']} actions wait"
    if state["lookups"]:
        waits += f"; {state['hits']} of {state['lookups']} cache look-ups hit"
    if not workers:
        return f"no workers; {waits}\nstart one with `buildgraph worker --join URL`\n"
    busy, slots = (sum(each[name] for each in workers) for name in ("busy", "slots"))
    count = f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'}"
    parts = [f"{count}, {busy} of {slots} slots busy, {waits}\n"]
    rows = [["WORKER", "STATE", "BUSY", "MEMORY", "PLATFORMS", "DONE", "FAILED", "WARM", "SINCE", "KEY"]]
    for each in workers:
        rows.append([
            each["name"], each["state"], f"{each['busy']}/{each['slots']}", size_text(each["memory"]),
            ",".join(each["platforms"]), str(each["done"]), str(each["failed"]),
            f"{each['warm']:.0%}" if each["done"] + each["failed"] or each["warm"] else "-",
            age_text(max(0.0, state["at"] - each["since"])), each["key"],
        ])  # fmt: skip
    parts.append(table(rows, right=(2, 3, 5, 6, 7, 8)))
    if state["running"]:
        rows = [["RUNNING", "ON", "FOR", "OF", "BECAUSE", "ACTION"]]
        parts.append(table([*rows, *(_row(each) for each in state["running"])], right=(2, 3)))
    if state["queued"]:
        rows = [["WAITING", "", "FOR", "TAKES", "BECAUSE", "ACTION"]]
        parts.append(table([*rows, *(_row(each) for each in state["queued"])], right=(2, 3)))
    if state["builds"]:
        rows = [["BUILD", "PERSON", "PROJECT", "RUNNING", "WAITING", "DONE"]]
        for each in state["builds"]:
            numbers = [str(each[name]) for name in ("running", "queued", "done")]
            rows.append([each["build"][:KEY_CHARS], each["person"], each["project"], *numbers])
        parts.append(table(rows, right=(3, 4, 5)))
    return "\n".join(parts)


def _row(action: Mapping[str, Any]) -> list[str]:
    expected = seconds_text(action["expected"]) if action["expected"] else ""
    text = action["text"].replace("\n", " ")
    text = text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…"
    took = seconds_text(action["seconds"])
    return [text, action["worker"], took, expected, action["reason"], action["key"][:KEY_CHARS]]


def _decisions(found: Mapping[str, Any]) -> str:
    lines = f"{printable(found['text'].replace(chr(10), ' '))}\n  action {printable(found['key'])}\n\n"
    rows = [
        [time.strftime("%H:%M:%S", time.localtime(each["at"])), each["reason"], each["worker"], each["text"]]
        for each in found["decisions"]
    ]
    return lines + (table(rows) if rows else "  nothing was decided yet\n")
