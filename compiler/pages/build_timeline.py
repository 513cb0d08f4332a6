"""BuildTimeline: when and where the steps of a build ran: rows are machines. Records may say anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from compiler.pages.rows_picture import RowBar, rows_picture
from compiler.trace.critical import critical_chain
from compiler.views.phrases import seconds_phrase

if TYPE_CHECKING:
    from cache.build_record import BuildRecord, NodeRecord

MOST_BARS = 500
"""That are drawn: the longest, for the others would not be seen beside them."""
MOST_INPUTS = 20_000
"""Of a build whose critical path is looked for; one of 2,000 steps has a quarter of them."""
STYLES = {"ran": "miss", "failed": "failed"}


class BuildTimeline(NamedTuple):
    """picture: one SVG element. critical: ids of the steps that the build had to wait for, first to last; seconds:
    that these took. shorter: steps that are not drawn."""

    picture: str
    critical: tuple[str, ...]
    seconds: float
    shorter: int


def build_timeline(build: BuildRecord) -> BuildTimeline | None:
    """None if the record does not say when anything ran, as those of earlier versions."""
    spans = {node.id: _span(node) for node in build.nodes if node.started is not None and node.status in STYLES}
    if not spans:
        return None
    inputs = {each.id: each.inputs for each in build.beside} | {node.id: node.inputs for node in build.nodes}
    few = sum(map(len, inputs.values())) <= MOST_INPUTS
    critical = critical_chain(spans, inputs) if few else ()
    numbered = [(number, node) for number, node in enumerate(build.nodes) if node.id in spans and node.status in STYLES]
    numbered.sort(key=lambda each: (each[1].id not in critical, spans[each[1].id][0] - spans[each[1].id][1]))
    rows: dict[str, list[RowBar]] = {}
    drawn = numbered[:MOST_BARS]
    for number, node in drawn:
        rows.setdefault(node.worker, []).append(_bar(number, node, spans[node.id], node.id in critical))
    last = max([build.seconds, *(end for _, end in spans.values())])
    named = [(_name(worker, build), rows[worker]) for worker in sorted(rows)]
    label = f"{len(drawn)} steps on {len(rows)} {'machine' if len(rows) == 1 else 'machines'}"
    took = sum(spans[name][1] - spans[name][0] for name in critical)
    return BuildTimeline(rows_picture(named, last, label), critical, took, len(numbered) - len(drawn))


def _span(node: NodeRecord) -> tuple[float, float]:
    turn = max(0.0, node.started or 0.0)
    start = turn + max(0.0, node.waited)
    return start, max(start, turn + node.seconds)


def _bar(number: int, node: NodeRecord, span: tuple[float, float], critical: bool) -> RowBar:
    start, end = span
    waited = f", waited {seconds_phrase(node.waited)}" if node.waited > 0 else ""
    tooltip = f"{node.id}: {seconds_phrase(end - start)}{waited}: {node.title}"
    return RowBar(start, end, f"{node.id} {node.title}", tooltip, STYLES[node.status], f"#n{number}", critical)


def _name(worker: str, build: BuildRecord) -> str:
    return worker or f"here: {build.made_by}"
