"""`buildgraph cache du`: what the store's bytes are."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from cache.grouping import Groups, by_kind, by_names
from cache.inventory import Inventory
from cache.size_text import bytes_text
from cache.stocktaking import take_inventory
from compiler.cli.cache_filters import FILTERS, read_filters
from compiler.cli.streams import say
from compiler.cli.table import table
from compiler.progress.text import age_text

if TYPE_CHECKING:
    import argparse

    from cache.inventory import Item
    from cache.lmdb_store import LmdbStore

TOUCHES_FILES_OF_STEPS = True
COMMAND = "cache du"
VERSION = 1
"""Of the JSON."""
KIND_TEXTS = {
    "step": "what steps made",
    "base": "images from outside",
    "fetch": "files and repositories",
    "mount": "cache mounts",
    "prepared": "layers ready for mounting",
}
NO_PROJECT, NO_IMAGE = "(no project)", "(no image)"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", default="kind", choices=("kind", "project", "image"), help="how to sum up")
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help=f"only these: {FILTERS}")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every item, largest first")
    parser.add_argument("--format", default="table", choices=("table", "json"), help="for people or for programs")


def run(store: LmdbStore, parsed: argparse.Namespace) -> int:
    """Exit code 0, or an exception."""
    filters = read_filters(parsed.filter, COMMAND)
    inventory = take_inventory(store)
    if filters.any:
        inventory = inventory.only([item for item in inventory.items if filters.match(item)])
    groups = _groups(inventory, parsed.by)
    if parsed.format == "json":
        say(json.dumps(_document(store.directory, inventory, groups, parsed), indent=2) + "\n")
        return 0
    text = f"store {store.directory}\n" + _summary(inventory, groups, parsed.by, whole=not filters.any)
    if parsed.verbose and inventory.items:
        text += "\n" + _items(inventory)
    say(text)
    return 0


def run_without_store(directory: str, parsed: argparse.Namespace) -> str:
    """The empty JSON document, "" if none is asked for. Raises UsageError as with a store."""
    read_filters(parsed.filter, COMMAND)
    nothing = Inventory.nothing()
    if parsed.format != "json":
        return ""
    return json.dumps(_document(directory, nothing, _groups(nothing, parsed.by), parsed), indent=2)


def _groups(inventory: Inventory, how: str) -> Groups:
    if how == "project":
        return by_names(inventory, lambda item: item.projects, NO_PROJECT)
    if how == "image":
        return by_names(inventory, lambda item: item.images, NO_IMAGE)
    return by_kind(inventory)


def _rest(inventory: Inventory) -> list[tuple[str, int, str]]:
    rows = [
        ("record", inventory.records, "keys, builds, images and what contexts had"),
        ("unused", inventory.unused, "goes when running builds have ended"),
        ("scratch", inventory.scratch, "of running builds"),
        ("other", inventory.overhead, "directories and locks"),
        ("reusable", inventory.reusable, "free inside data.mdb, which does not shrink"),
    ]
    return [row for row in rows if row[1] or row[0] == "record"]


def _summary(inventory: Inventory, groups: Groups, how: str, *, whole: bool) -> str:
    rows = [(how.upper(), "ITEMS", "SIZE", "")]
    for group in groups.groups:
        note = KIND_TEXTS.get(group.name, "") if how == "kind" else ""
        rows.append((group.name, str(group.items), bytes_text(group.bytes), note))
    among = {"kind": "items", "project": "projects", "image": "images"}[how]
    rows.append(("shared", "", bytes_text(groups.shared), f"what several {among} have, counted once"))
    rows += [(name, "", bytes_text(size), note) for name, size, note in _rest(inventory) if whole]
    rows.append(("total", str(len(inventory.items)), bytes_text(inventory.total), ""))
    return table(rows, right=(1, 2))


def _items(inventory: Inventory) -> str:
    now = time.time()
    rows = [("SIZE", "KIND", "LAST USE", "BUILDS", "MAKE", "IMAGES", "KEY", "WHAT")]
    for item in sorted(inventory.items, key=lambda item: (-inventory.size(item), item.key)):
        last = f"{age_text(now - item.last)} ago" if item.last else ""
        images = item.images[0] if len(item.images) == 1 else str(len(item.images) or "")
        rows.append(
            (bytes_text(inventory.size(item)), item.kind, last, str(item.uses),
             f"{item.seconds:.1f}s", images, short_key(item), item.title)
        )  # fmt: skip
    return table(rows, right=(0, 3, 4))


def _document(directory: str, inventory: Inventory, groups: Groups, parsed: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": VERSION,
        "store": directory,
        "by": parsed.by,
        "groups": [group._asdict() for group in groups.groups],
        "shared": groups.shared,
        **{name: size for name, size, _ in _rest(inventory)},
        "used": inventory.used,
        "total": inventory.total,
    }
    if parsed.verbose:
        found["items"] = [
            {
                "key": item.key, "kind": item.kind, "bytes": inventory.size(item),
                "shared_bytes": sum(inventory.sizes[blob] for blob in item.blobs if inventory.holders[blob] > 1),
                "last_use": item.last, "builds": item.uses, "seconds": item.seconds, "projects": list(item.projects),
                "images": list(item.images), "log": item.log or None, "title": item.title,
            }
            for item in sorted(inventory.items, key=lambda item: (-inventory.size(item), item.key))
        ]  # fmt: skip
    return found


def short_key(item: Item) -> str:
    """As much of a key as `log` and people need."""
    kind, _, name = item.key.partition(":")
    return name[:12] if kind == "result" else name.removeprefix("sha256:")[:12] if kind == "layer" else name[:24]
