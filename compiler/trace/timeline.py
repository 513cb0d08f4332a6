"""Timeline: a build as bars in rows, and which of them made it as long as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = "here"
"""What the row of the machine that builds is called."""

BarStatus = Literal["done", "cached", "failed", "cancelled", "again", "late"]


class Bar(NamedTuple):
    """Something that took time.

    node: its id, "" for work on the build as a whole. kind: as in the graph; of such work its first word, as
    `publishing`. worker: of the fleet, who did it; "" for the machine that builds. start, end: seconds since the
    epoch. status: `again` for one that its worker did not end, so that another began it; `late` for one that another
    ended first. reason, why: why a step was executed, as a word and as a sentence. note: what else was said at its
    end. waited: seconds between its turn and its start. size: bytes of its layer, None for none or unknown.
    """

    node: str
    name: str
    kind: str
    worker: str
    start: float
    end: float
    status: BarStatus
    key: str = ""
    reason: str = ""
    why: str = ""
    note: str = ""
    waited: float = 0.0
    size: int | None = None


class Timeline(NamedTuple):
    """bars: in the order of their starts. inputs: ids of nodes by the id of what takes from them. critical: ids of
    the nodes that made the build as long as it was, first to last. began, ended: of the build, seconds since the
    epoch. ok, digest, hits, ran: as in `Ended`; complete: whether the build said that it ended."""

    bars: tuple[Bar, ...]
    inputs: Mapping[str, tuple[str, ...]]
    critical: tuple[str, ...]
    began: float
    ended: float
    ok: bool
    digest: str
    hits: int
    ran: int
    complete: bool
