"""Figures: what the first page shows, read from the newest builds that the server was told of."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.build_record import BuildRecord
from compiler.foreign_records import unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Blobs = Callable[[str, Sequence[str]], Mapping[str, Mapping[str, int]]]
    """Namespace and content keys in; content key → blobs and their sizes out, of those whose results are there."""

MOST_BUILDS = 200
SHOWN_BUILDS = 40
MOST_RECORDS = 1000
"""Records that are looked at to find so many."""
MAX_RECORD = 1 << 20
MAX_READ = 32 << 20
"""Unpacked bytes of one record, and of all: a record of 1,000 steps has 300 kB."""
SLOWEST = 12
FUTURE_SECONDS = 86400.0
"""Builds whose clocks are further ahead are left out: they would stay the newest ones for ever."""
KEY = re.compile(r"[0-9a-f]{12}-[0-9a-f]{8}")


class Build(NamedTuple):
    """One build as a line. key, namespace: where its page is."""

    namespace: str
    key: str
    record: BuildRecord

    @property
    def hits(self) -> int:
        return sum(1 for node in self.record.nodes if node.status == "cached")

    @property
    def ran(self) -> int:
        """Steps that were executed, also if they failed."""
        return sum(1 for node in self.record.nodes if node.status in ("ran", "failed"))

    @property
    def path(self) -> str:
        return f"/builds/{self.namespace}{'/' if self.namespace else ''}{self.key}"


class SlowStep(NamedTuple):
    """seconds: of its longest run among the builds; build: that one."""

    build: Build
    id: str
    title: str
    seconds: float
    runs: int


class Project(NamedTuple):
    """newest: build. bytes: of the results that its builds used and that are still there, each blob once."""

    namespace: str
    name: str
    newest: Build
    builds: int
    hits: int
    steps: int
    bytes: int

    @property
    def rate(self) -> int | None:
        """Per cent of its steps that were cached; None if there were none."""
        return percent(self.hits, self.steps)


def percent(part: int, whole: int) -> int | None:
    """Rounded towards what it is not: only all is 100, only none is 0."""
    if whole <= 0:
        return None
    return part * 100 // whole if part * 2 > whole else -(-part * 100 // whole)


def newest_builds(rows: Iterator[tuple[str, str, bytes]], now: float) -> list[Build]:
    """rows: namespace, key and record, the newest first; whatever makes no sense is left out."""
    found: list[Build] = []
    read = 0
    for number, (namespace, key, value) in enumerate(rows):
        if number >= MOST_RECORDS or len(found) >= MOST_BUILDS or read >= MAX_READ:
            break
        if not KEY.fullmatch(key) or int(key[:12], 16) / 1000 > now + FUTURE_SECONDS:
            continue
        data = unpacked(value, MAX_RECORD)
        read += MAX_RECORD if data is None else len(data)
        record = None if data is None else BuildRecord.parse(key, value)
        if record is not None:
            found.append(Build(namespace, key, record))
    return found


def slowest_steps(builds: Iterable[Build]) -> list[SlowStep]:
    """Of all that ran, one a project and instruction, the longest first."""
    found: dict[tuple[str, str], SlowStep] = {}
    for build in builds:
        for node in build.record.nodes:
            if node.status != "ran":
                continue
            place = build.record.project, node.title
            known = found.get(place)
            if known is None:
                found[place] = SlowStep(build, node.id, node.title, node.seconds, 1)
            elif node.seconds > known.seconds:
                found[place] = SlowStep(build, node.id, node.title, node.seconds, known.runs + 1)
            else:
                found[place] = known._replace(runs=known.runs + 1)
    return sorted(found.values(), key=lambda step: -step.seconds)[:SLOWEST]


def projects(builds: Sequence[Build], blobs_of: Blobs) -> list[Project]:
    """By namespace and name, the one that was built last first."""
    grouped: dict[tuple[str, str], list[Build]] = {}
    for build in builds:
        grouped.setdefault((build.namespace, build.record.project), []).append(build)
    wanted: dict[str, set[str]] = {}
    for build in builds:
        wanted.setdefault(build.namespace, set()).update(node.content for node in build.record.nodes if node.content)
    named = {namespace: blobs_of(namespace, sorted(contents)) for namespace, contents in wanted.items()}
    found = []
    for (namespace, name), theirs in grouped.items():
        blobs: dict[str, int] = {}
        for content in {node.content for build in theirs for node in build.record.nodes}:
            blobs.update(named[namespace].get(content, {}))
        hits = sum(build.hits for build in theirs)
        steps = hits + sum(build.ran for build in theirs)
        found.append(Project(namespace, name, theirs[0], len(theirs), hits, steps, sum(blobs.values())))
    return found


def day_text(hour: int) -> str:
    """`Tue 24 Nov`, in UTC."""
    return time.strftime("%a %d %b", time.gmtime(hour * 3600))
