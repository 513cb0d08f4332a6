"""`buildgraph cache prune`: remove what is not needed, by filters and limits."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from cache.disk_usage import disk_bytes
from cache.errors import UsageError
from cache.inventory import KINDS
from cache.prune import Filters, Limits, Pruned, holder_text, prune
from cache.size_text import bytes_text, parse_size
from compiler.cli.cache_du import short_key
from compiler.cli.gc_policy import age
from compiler.cli.streams import say
from compiler.cli.table import table
from compiler.progress.text import age_text, printable

if TYPE_CHECKING:
    import argparse

    from cache.lmdb_store import LmdbStore

TOUCHES_FILES_OF_STEPS = True
SHOWN = 40
"""Items that are listed unless --verbose asks for all."""
FILTERS = "until=24h|TIMESTAMP, unused-for=7d, project=NAME, kind=step,base,fetch,mount,prepared"
_SECONDS = re.compile(r"[0-9]{9,11}(\.[0-9]{1,9})?")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Without limits everything goes that no image needs which was built here and has a name; images from outside "
        "count as cache. With limits what is worth least goes first: seconds to make it again × chance of use ÷ bytes."
    )
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help=FILTERS)
    parser.add_argument("--max-used-space", default="", metavar="SIZE", help="until the store uses no more: 10GB, 20%%")
    parser.add_argument("--keep-storage", default="", metavar="SIZE", help="docker's word for --max-used-space")
    parser.add_argument("--min-free-space", default="", metavar="SIZE", help="until so much of the disk is free")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and why")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every item")
    parser.add_argument("-a", "--all", action="store_true", help="as without: images by name stay, see `image rm`")
    parser.add_argument("-f", "--force", action="store_true", help="accepted: nothing is asked")


def run(store: LmdbStore, parsed: argparse.Namespace) -> int:
    """Exit code 0, or an exception."""
    filters = _filters(parsed.filter)
    disk = disk_bytes(store.directory)
    limits = Limits(
        _size(parsed.max_used_space or parsed.keep_storage, "--max-used-space", disk),
        _size(parsed.min_free_space, "--min-free-space", disk),
    )
    pruned = prune(store, filters, limits, dry_run=parsed.dry_run)
    text = _listed(pruned, dry_run=parsed.dry_run, everything=parsed.verbose or parsed.dry_run)
    text += _said(pruned, dry_run=parsed.dry_run)
    if parsed.all and pruned.pinned:
        text += "images that have a name stay also with --all; `buildgraph image rm NAME` gives them up\n"
    say(text)
    return 0


def _filters(texts: list[str]) -> Filters:
    now = time.time()
    since: float | None = None
    projects: list[str] = []
    kinds: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in ("until", "unused-for", "project", "kind") or not equals or not value:
            raise UsageError(f"--filter {text}: not a filter that is known", hint=f"it may be {FILTERS}")
        if name == "project":
            projects.append(value)
        elif name == "kind":
            kinds += value.split(",")
        else:
            moment = _moment(text, value, now, timestamps=name == "until")
            since = moment if since is None else min(since, moment)
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UsageError(f"--filter kind={unknown[0]}: there is no such kind", hint=f"it may be {', '.join(KINDS)}")
    parts = [] if since is None else [f"not used since {time.strftime('%Y-%m-%d %H:%M', time.localtime(since))}"]
    parts += [f"of the project {name}" for name in projects]
    parts += [f"of the kind {name}" for name in kinds]
    return Filters(since, tuple(projects), tuple(kinds), "pruned: " + ", ".join(parts) if parts else "")


def _moment(text: str, value: str, now: float, *, timestamps: bool) -> float:
    """Seconds since the epoch."""
    try:
        return now - age(value)
    except ValueError as error:
        if timestamps:
            if _SECONDS.fullmatch(value):
                return float(value)
            import datetime

            try:
                return datetime.datetime.fromisoformat(value).timestamp()
            except (ValueError, OverflowError):
                pass
        raise UsageError(f"--filter {text}: {error}") from None


def _size(text: str, option: str, disk: int) -> int | None:
    if not text:
        return None
    try:
        return parse_size(text, disk)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _listed(pruned: Pruned, *, dry_run: bool, everything: bool) -> str:
    if not pruned.going:
        return ""
    now = time.time()
    rows = [("WOULD GO" if dry_run else "WENT", "SIZE", "LAST USE", "VALUE", "KEY", "WHAT")]
    shown = pruned.going if everything else sorted(pruned.going, key=lambda each: -each.freed)[:SHOWN]
    for each in shown:
        last = f"{age_text(now - each.item.last)} ago" if each.item.last else ""
        worth = f"{each.value * (1 << 20):.3g}"
        rows.append((each.item.kind, bytes_text(each.freed), last, worth, short_key(each.item), each.item.title))
    text = table(rows, right=(1, 3))
    if len(shown) < len(pruned.going):
        text += f"and {len(pruned.going) - len(shown)} more\n"
    rules = list(dict.fromkeys(each.rule for each in pruned.going))
    return text + "".join(f"why: {printable(rule)}\n" for rule in rules) + "value: seconds saved for each MiB kept\n"


def _said(pruned: Pruned, *, dry_run: bool) -> str:
    lines = []
    reclaimed = pruned.reclaimed
    if dry_run:
        freed = sum(each.freed for each in pruned.going) + reclaimed.waiting
        lines.append(f"{_items(pruned)} with {bytes_text(freed)} would go")
    else:
        lines.append(f"{_items(pruned)} went, {bytes_text(reclaimed.bytes)} came back")
        if reclaimed.waiting:
            holders = holder_text(reclaimed.holders) or "running builds"
            waiting = bytes_text(reclaimed.waiting)
            lines.append(f"{waiting} more come back with the first clean-up after {holders} ended")
    reasons: dict[str, int] = {}
    for _, reason in pruned.kept:
        reasons[reason] = reasons.get(reason, 0) + 1
    lines += [f"kept {count}: {reason}" for reason, count in reasons.items()]
    if pruned.short:
        short, pinned = bytes_text(pruned.short), bytes_text(pruned.pinned)
        lines.append(f"the limits ask for {short} more; named images keep {pinned}")
    return "".join(f"{line}\n" for line in lines)


def _items(pruned: Pruned) -> str:
    count = len(pruned.going)
    return f"{count} item{'s' if count != 1 else ''}"
