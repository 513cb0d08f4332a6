"""`buildgraph cache prune`: remove what is not needed, by filters and limits."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from cache.disk_usage import disk_bytes
from cache.errors import UsageError
from cache.prune import Filters, Limits, Pruned, holder_text, prune
from cache.size_text import bytes_text, parse_size
from compiler.cli.cache_du import short_key
from compiler.cli.cache_filters import FILTERS, read_filters
from compiler.cli.streams import say
from compiler.cli.table import table
from compiler.progress.text import age_text

if TYPE_CHECKING:
    import argparse

    from cache.lmdb_store import LmdbStore

TOUCHES_FILES_OF_STEPS = True
VERSION = 1
"""Of the JSON."""
SHOWN = 40
"""Items that are listed unless --verbose asks for all."""
TITLE = 40
"""Characters of an instruction that are listed unless --verbose asks for all."""
DATA = "data.mdb"
_BLOCK = 512
"""Bytes that `stat` counts in."""
HELP = "see buildgraph cache prune --help"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Without limits everything goes that no image needs which was built here and has a name; images from outside "
        "count as cache. With limits what is worth least goes first: seconds to make it again × chance of use ÷ bytes."
    )
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help=FILTERS)
    parser.add_argument("--max-used-space", metavar="SIZE", help="until the store uses no more: 10GB, 20%%")
    parser.add_argument("--keep-storage", metavar="SIZE", help="docker's word for --max-used-space")
    parser.add_argument("--min-free-space", metavar="SIZE", help="until so much of the disk is free")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and why")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every item, in full")
    parser.add_argument("--format", default="table", choices=("table", "json"), help="for people or for programs")
    parser.add_argument("-a", "--all", action="store_true", help="as without: images by name stay, see `image rm`")
    parser.add_argument("-f", "--force", action="store_true", help="accepted: nothing is asked")


def run(store: LmdbStore, parsed: argparse.Namespace) -> int:
    """Exit code 0, or an exception."""
    filters, limits = _asked(parsed, disk_bytes(store.directory))
    pruned = prune(store, filters, limits, dry_run=parsed.dry_run)
    if parsed.format == "json":
        say(json.dumps(_document(store.directory, pruned, dry_run=parsed.dry_run), indent=2) + "\n")
        return 0
    text = _listed(pruned, dry_run=parsed.dry_run, verbose=parsed.verbose)
    text += _said(pruned, os.path.join(store.directory, DATA), dry_run=parsed.dry_run)
    if parsed.all and pruned.pinned:
        text += "images that have a name stay also with --all; `buildgraph image rm NAME` gives them up\n"
    say(text)
    return 0


def run_without_store(directory: str, parsed: argparse.Namespace) -> str:
    """The empty JSON document, "" if none is asked for. Raises UsageError as with a store."""
    _asked(parsed, 0)
    empty = Pruned()
    return json.dumps(_document(directory, empty, dry_run=parsed.dry_run), indent=2) if parsed.format == "json" else ""


def _asked(parsed: argparse.Namespace, disk: int) -> tuple[Filters, Limits]:
    """disk: bytes of the disk that the store is on. Raises UsageError."""
    filters = read_filters(parsed.filter, "cache prune")
    if parsed.max_used_space is not None and parsed.keep_storage is not None:
        raise UsageError("--keep-storage and --max-used-space are two words for one limit", hint=f"give one; {HELP}")
    option = "--keep-storage" if parsed.max_used_space is None else "--max-used-space"
    max_used = parsed.keep_storage if parsed.max_used_space is None else parsed.max_used_space
    return filters, Limits(
        _size(max_used, option, disk),
        _size(parsed.min_free_space, "--min-free-space", disk),
        "" if max_used is None else f"{max_used} ({option})",
        "" if parsed.min_free_space is None else f"{parsed.min_free_space} (--min-free-space)",
    )


def _size(text: str | None, option: str, disk: int) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text, disk)
    except ValueError as error:
        raise UsageError(f"{option}: {error}", hint=HELP) from None


def _listed(pruned: Pruned, *, dry_run: bool, verbose: bool) -> str:
    if not pruned.going:
        return ""
    now = time.time()
    rows = [("WOULD GO" if dry_run else "WENT", "SIZE", "LAST USE", "VALUE", "KEY", "WHAT", "WHY")]
    everything = verbose or dry_run
    shown = pruned.going if everything else sorted(pruned.going, key=lambda each: -each.freed)[:SHOWN]
    for each in shown:
        last = f"{age_text(now - each.item.last)} ago" if each.item.last else ""
        worth = f"{each.value * (1 << 20):.3g}"
        title = " ".join(each.item.title.split())
        title = title if verbose or len(title) <= TITLE else f"{title[: TITLE - 1]}…"
        rows.append((each.item.kind, bytes_text(each.freed), last, worth, short_key(each.item), title, each.rule))
    text = table(rows, right=(1, 3))
    if len(shown) < len(pruned.going):
        text += f"and {len(pruned.going) - len(shown)} more\n"
    return text + "value: seconds saved for each MiB kept\n"


def _said(pruned: Pruned, data: str, *, dry_run: bool) -> str:
    """data: path of the file with the records."""
    lines = []
    reclaimed = pruned.reclaimed
    if dry_run:
        lines.append(f"{_items(pruned)} with {bytes_text(_freed(pruned, dry_run=True))} would go")
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
        stays = [f"named images keep {bytes_text(pruned.pinned)}"] if pruned.pinned else []
        stays.append(f"{DATA} itself stays: {bytes_text(os.stat(data).st_blocks * _BLOCK)}")
        lines.append(f"the limits ask for {bytes_text(pruned.short)} more; {', '.join(stays)}")
    return "".join(f"{line}\n" for line in lines)


def _document(directory: str, pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    """See docs/cache.md."""
    return {
        "version": VERSION,
        "store": directory,
        "dry_run": dry_run,
        "items": [
            {
                "key": each.item.key, "kind": each.item.kind, "bytes": each.freed, "last_use": each.item.last,
                "seconds": each.item.seconds, "value": each.value, "rule": each.rule, "title": each.item.title,
            }
            for each in pruned.going
        ],
        "kept": [{"key": item.key, "kind": item.kind, "reason": reason} for item, reason in pruned.kept],
        "freed": _freed(pruned, dry_run=dry_run),
        "waiting": 0 if dry_run else pruned.reclaimed.waiting,
        "used": max(0, pruned.used),
        "pinned": pruned.pinned,
        "short": pruned.short,
    }  # fmt: skip


def _freed(pruned: Pruned, *, dry_run: bool) -> int:
    """Bytes that came back, or would."""
    if dry_run:
        return sum(each.freed for each in pruned.going) + pruned.reclaimed.waiting
    return pruned.reclaimed.bytes


def _items(pruned: Pruned) -> str:
    count = len(pruned.going)
    return f"{count} item{'s' if count != 1 else ''}"
