"""`buildgraph cache stat`: how much of what was built came from the cache, by day or by project."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.build_record import all_builds
from compiler.cli.streams import say
from compiler.cli.table import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from cache.build_record import BuildRecord
    from cache.lmdb_store import LmdbStore

TOUCHES_FILES_OF_STEPS = False
VERSION = 1
"""Of the JSON."""
DAYS = 14
BAR = 20
"""Characters of a full bar."""


class Row(NamedTuple):
    """Of one day or project. seconds_saved: what hits took when they were made; seconds_spent: on steps that ran."""

    name: str
    builds: int = 0
    steps: int = 0
    hits: int = 0
    ran: int = 0
    failed: int = 0
    seconds_saved: float = 0.0
    seconds_spent: float = 0.0

    @property
    def rate(self) -> float:
        return self.hits / self.steps if self.steps else 0.0

    def plus(self, build: BuildRecord) -> Row:
        nodes = [node for node in build.nodes if node.status != "cancelled"]
        hits = [node for node in nodes if node.status == "cached"]
        return Row(
            self.name, self.builds + 1, self.steps + len(nodes), self.hits + len(hits),
            self.ran + sum(node.status == "ran" for node in nodes),
            self.failed + sum(node.status == "failed" for node in nodes),
            self.seconds_saved + sum(node.seconds for node in hits),
            self.seconds_spent + sum(node.seconds for node in nodes if node.status != "cached"),
        )  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", default="day", choices=("day", "project"), help="how to sum up")
    parser.add_argument("--format", default="table", choices=("table", "json"), help="for people or for programs")


def run(store: LmdbStore, parsed: argparse.Namespace) -> int:
    """Exit code 0, or an exception."""
    builds = all_builds(store)
    rows = by_project(builds) if parsed.by == "project" else by_day(builds, time.time())
    total = sum_up("total", [build for build in builds if parsed.by == "project" or _is_recent(build, time.time())])
    if parsed.format == "json":
        say(_document(parsed.by, rows, total) + "\n")
        return 0
    if not total.builds:
        say("no build is remembered\n" if not builds else f"no build in the last {DAYS} days\n")
        return 0
    heads = (parsed.by.upper(), "BUILDS", "STEPS", "HITS", "RAN", "FAILED", "HIT RATE", "", "SAVED", "SPENT")
    say(table([heads, *map(_cells, [*rows, total])], right=(1, 2, 3, 4, 5, 6, 8, 9)))
    return 0


def run_without_store(_directory: str, parsed: argparse.Namespace) -> str:
    """The empty JSON document, "" if none is asked for."""
    return _document(parsed.by, [], Row("total")) if parsed.format == "json" else ""


def _document(how: str, rows: list[Row], total: Row) -> str:
    document = {"version": VERSION, "by": how, "rows": list(map(_json, rows)), "total": _json(total)}
    return json.dumps(document, indent=2)


def by_day(builds: Iterable[BuildRecord], now: float) -> list[Row]:
    """The last DAYS days with builds, oldest first."""
    recent = [build for build in builds if _is_recent(build, now)]
    return _grouped(recent, lambda build: _day(build.started))


def by_project(builds: Iterable[BuildRecord]) -> list[Row]:
    """Most builds first."""
    return sorted(_grouped(builds, lambda build: build.project), key=lambda row: (-row.builds, row.name))


def sum_up(name: str, builds: Iterable[BuildRecord]) -> Row:
    row = Row(name)
    for build in builds:
        row = row.plus(build)
    return row


def _grouped(builds: Iterable[BuildRecord], name: Callable[[BuildRecord], str]) -> list[Row]:
    found: dict[str, Row] = {}
    for build in builds:
        key = name(build)
        found[key] = found.get(key, Row(key)).plus(build)
    return list(found.values())


def _is_recent(build: BuildRecord, now: float) -> bool:
    return build.started > now - DAYS * 86_400


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _cells(row: Row) -> tuple[str, ...]:
    filled = round(row.rate * BAR)
    return (
        row.name, str(row.builds), str(row.steps), str(row.hits), str(row.ran), str(row.failed),
        f"{row.rate * 100:.0f} %" if row.steps else "", "█" * filled + "░" * (BAR - filled) if row.steps else "",
        _seconds(row.seconds_saved), _seconds(row.seconds_spent),
    )  # fmt: skip


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _json(row: Row) -> dict[str, object]:
    return {**row._asdict(), "hit_rate": round(row.rate, 4)}
