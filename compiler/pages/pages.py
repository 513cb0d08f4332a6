"""Pages: what is asked for, who may see it, and the page. Read again at most every few seconds."""

from __future__ import annotations

import base64
import binascii
import os
import threading
import time
from typing import TYPE_CHECKING

from cache.build_record import BuildRecord
from compiler.foreign_records import ForeignRecords, explain_foreign, unpacked
from compiler.pages import build_picture, charts, figures, templates
from compiler.pages.build_timeline import build_timeline
from compiler.pages.fleet_picture import aged, fleet_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cache.build_record import NodeRecord
    from cache.lmdb_store import LmdbStore
    from cache.server.access import Caller
    from cache.server.http_port import PageAnswer, PageRequest
    from cache.server.journal import Journal
    from cache.server.quotas import Quotas
    from cache.server.shared_records import SharedRecords
    from cache.server.tally import Tally
    from cache.server.token_guard import TokenGuard
    from compiler.pages.fleet_picture import State
    from compiler.reasons import Explained

FRESH_SECONDS = 5.0
"""How old a page may be that is shown again: a wall of screens costs no more than one."""
MAX_KEPT, MAX_KEPT_BYTES = 64, 32 << 20
"""Pages that are kept, and their bytes together."""
MOST_NAMESPACES = 100
"""Namespaces that one page looks into: the largest."""
MAX_BUILD = 16 << 20
"""Bytes of an unpacked record of a build, as the server takes them."""
MOST_STEPS = 2000
"""Steps that a build's page lists."""
SHOWN_ROWS = 100
"""Workers, and actions that run or wait, that the first page lists."""
NO_FLEET = {"workers": (), "running": (), "queued": (), "queue_length": 0, "lookups": 0, "hits": 0, "builds": ()}
"""For those who may read nothing here: they may not ask for the workers otherwise, either."""
MOST_EXPLAINED = 200
EXPLAIN_SECONDS = 2.0
"""Steps of one build, and time, for which is looked up why they ran."""
HTML, CSS = "text/html; charset=utf-8", "text/css; charset=utf-8"
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
)


class Pages:
    """A `PageMaker`."""

    def __init__(
        self,
        store: LmdbStore,
        records: SharedRecords,
        guard: TokenGuard,
        quotas: Quotas,
        tally: Tally,
        journal: Journal,
        fleet: State,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._records = records
        self._guard = guard
        self._quotas = quotas
        self._tally = tally
        self._journal = journal
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[float, bytes | None]] = {}

    def __call__(self, request: PageRequest) -> PageAnswer | None:
        from cache.server.http_port import PageAnswer

        if request.path == "/page.css":
            return PageAnswer(200, CSS, _stylesheet(), (("Cache-Control", "max-age=60"),))
        if request.path != "/" and not request.path.startswith("/builds/"):
            return None
        caller = self._caller(request.headers)
        if caller is None:
            challenge = ("WWW-Authenticate", 'Basic realm="buildgraph: a token as password", charset="UTF-8"')
            return PageAnswer(401, HTML, templates.render("refused.html"), (challenge, *HEADERS))
        visible = self._visible(caller)
        body = self._page(request.path, visible)
        status = 404 if body is None else 200
        return PageAnswer(status, HTML, templates.render("missing.html") if body is None else body, HEADERS)

    # who

    def _caller(self, headers: Mapping[str, str]) -> Caller | None:
        """Whoever shows a token, in the place of a password; else what everybody may."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        if not kind:
            return self._guard.anonymous
        secret = value.strip()
        if kind.lower() == "basic":
            try:
                user, _, password = base64.b64decode(secret, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                user = password = ""
            secret = password or user
        found = self._guard.caller_of(secret)
        if found is None:
            self._journal.write("refused", source="http", status="UNAUTHENTICATED", text="no good token for the page")
        return found

    def _visible(self, caller: Caller) -> tuple[str, ...]:
        """Namespaces that exist and that the caller may read, the largest first."""
        names = dict.fromkeys((*self._quotas.usage(), ""))
        return tuple(name for name in names if caller.may("read", name))[:MOST_NAMESPACES]

    # what

    def _page(self, path: str, visible: tuple[str, ...]) -> bytes | None:
        key = path, visible
        # One page is made at a time: making ten at once would take as long, and all of the machine.
        with self._lock:
            now = time.monotonic()
            until, body = self._kept.get(key, (0.0, None))
            if now >= until:
                body = self._first(visible) if path == "/" else self._build(path, visible)
                self._kept.pop(key, None)
                self._kept[key] = time.monotonic() + FRESH_SECONDS, body
                while len(self._kept) > MAX_KEPT or self._kept_bytes() > MAX_KEPT_BYTES:
                    del self._kept[next(iter(self._kept))]
            return body

    def _kept_bytes(self) -> int:
        return sum(len(body or b"") for _, body in self._kept.values())

    def _first(self, visible: tuple[str, ...]) -> bytes:
        from cache.server.footprint import blobs_of

        now = time.time()
        builds = figures.newest_builds(self._records.newest_of(visible, "builds"), now)

        def blobs(namespace: str, contents: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
            return blobs_of(self._store, namespace, contents)

        seen = frozenset(visible)
        counts = self._tally.hours(seen.__contains__)
        hours, days = charts.by_hour(counts, now), charts.by_day(counts, now)
        usage = self._quotas.usage()
        # By the same namespaces as all of the page: it is kept, and shown to whoever may see these.
        fleet = aged(self._fleet(seen.__contains__), now) if visible else NO_FLEET
        return templates.render(
            "first.html",
            now=now,
            fleet=fleet,
            fleet_picture=templates.safe(fleet_picture(fleet)),
            shown=SHOWN_ROWS,
            hours=charts.summary(hours),
            days=charts.summary(days),
            hour_chart=templates.safe(charts.chart(hours, "Hit rate by hour")),
            day_chart=templates.safe(charts.chart(days, "Hit rate by day")),
            builds=builds[: figures.SHOWN_BUILDS],
            looked_at=len(builds),
            slow=figures.slowest_steps(builds),
            projects=figures.projects(builds, blobs)[: figures.SHOWN_BUILDS],
            namespaces=[(name, usage[name], self._quotas.limit_of(name)) for name in visible if name in usage],
            several=len({build.namespace for build in builds}) > 1,
            percent=figures.percent,
        )

    def _build(self, path: str, visible: tuple[str, ...]) -> bytes | None:
        namespace, _, key = path.removeprefix("/builds/").rpartition("/")
        if namespace not in visible or not figures.KEY.fullmatch(key):
            return None
        value = dict(self._records.find(namespace, "builds", [key])).get(key)
        data = None if value is None else unpacked(value, MAX_BUILD)
        record = None if value is None or data is None else BuildRecord.parse(key, value)
        if record is None:
            return None
        build = figures.Build(namespace, key, record)
        timeline = build_timeline(record)
        return templates.render(
            "build.html",
            now=time.time(),
            build=build,
            picture=templates.safe(build_picture.picture(record)),
            timeline=timeline,
            timeline_picture=templates.safe(timeline.picture if timeline is not None else ""),
            nodes=list(enumerate(record.nodes[:MOST_STEPS])),
            left_out=max(0, len(record.nodes) - MOST_STEPS),
            why=self._why(build),
            clock=_clock(record.started),
        )

    def _why(self, build: figures.Build) -> dict[int, Explained]:
        """Why steps ran, by their numbers: what they say themselves, else what differs from what they were before."""
        from compiler.reasons import Explained, Reason

        world = ForeignRecords(lambda kind, keys: dict(self._records.find(build.namespace, kind, keys)))
        until = time.monotonic() + EXPLAIN_SECONDS
        ran = [(number, node) for number, node in enumerate(build.record.nodes) if node.status in ("ran", "failed")]
        told: dict[int, Explained] = {}
        known: dict[tuple[str, str], Explained] = {}
        for number, node in ran[:MOST_EXPLAINED]:
            if time.monotonic() > until:
                break
            if node.note or node.reason:
                texts = {each.value: each for each in Reason}
                reason = texts.get(node.reason, Reason.GONE)
                told[number] = Explained(reason, node.note or node.reason.replace("-", " "))
                continue
            found = _compared(node, world, known)
            if found is not None:
                told[number] = found
        return told


def _compared(
    node: NodeRecord, world: ForeignRecords, known: dict[tuple[str, str], Explained]
) -> Explained | None:
    now, before = world.earlier(node.recipe), world.earlier(node.before)
    if now is None or before is None or now.recipe == before.recipe:
        return None
    return explain_foreign(now, before, world, known)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(0.0, seconds)))


def _stylesheet() -> bytes:
    with open(os.path.join(os.path.dirname(__file__), "page.css"), "rb") as file:
        return file.read()
