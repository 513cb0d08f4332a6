"""Forecasts for tests of the views, made by hand: nothing is parsed, stored or run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.forecast import DEPENDS, HIT, LOCAL, MISS, Forecast, Outlook
from compiler.reasons import Explained, Reason
from compiler.records import Expected
from compiler.schedule import RunSpan
from tests.compiler.graphs import result, scratch, stage, step

if TYPE_CHECKING:
    from compiler.graph import Node

NOW = 1_000_000.0


def hit(node: Node, **fields: object) -> Outlook:
    made = result(node.id, 3.2)._replace(made_at=NOW - 7200, made_by="ann@laptop") if node.is_step else None
    return Outlook(node, HIT, Explained(Reason.SAME_RECIPE, "made before"), "aa" * 32, made, where=LOCAL if made else "")._replace(**fields)


def miss(node: Node, text: str = "a.txt changed", details: tuple[str, ...] = (), **fields: object) -> Outlook:
    return Outlook(node, MISS, Explained(Reason.FILES_CHANGED, text, details), "bb" * 32, None)._replace(**fields)


def waits(node: Node, on: str, **fields: object) -> Outlook:
    why = Explained(Reason.INPUT_OPEN, f"it waits for what {on} makes")
    return Outlook(node, DEPENDS, why, "cc" * 32, None)._replace(**fields)


def forecast(*outlooks: Outlook, path: tuple[str, ...] = (), spans: tuple[RunSpan, ...] = (), **fields: object) -> Forecast:
    return Forecast(tuple(outlooks), {}, path, sum(span.end - span.start for span in spans if span.node in path), spans)._replace(**fields)


def two_stages(text: str = "RUN make", details: tuple[str, ...] = ()) -> Forecast:
    """`a` has a hit, a miss and a node that depends; `b` takes from it. text: of the miss."""
    wide = Expected(3.2, 2.9, 4.6, 5)
    return forecast(
        hit(scratch()),
        hit(step("a.1", "scratch", stage="a")),
        miss(step("a.2", "a.1", stage="a")._replace(text=text), details=details, expected=wide),
        waits(step("a.3", "a.2", stage="a"), "a.2", expected=Expected(1.0, 1.0, 1.0, 1), if_same=HIT),
        waits(stage("a", "a.3"), "a.3"),
        hit(step("b.1", "scratch", stage="b")),
        waits(step("b.2", "b.1", "a", kind="copy", stage="b"), "a.3", if_same=MISS, varies=("/x", "/y")),
        waits(stage("b", "b.2"), "b.2"),
        path=("a.2", "a.3", "b.2"),
        spans=(RunSpan("a.2", 0.0, 3.2), RunSpan("a.3", 3.2, 4.2), RunSpan("b.2", 4.2, 4.2)),
    )


def many(count: int) -> Forecast:
    """So many nodes: stages of five steps, each taking from an earlier one."""
    outlooks = [hit(scratch())]
    spans = []
    number = 0
    while len(outlooks) < count:
        name, below = f"s{number}", "scratch"
        for place in range(min(5, count - len(outlooks) - 1)):
            others = (f"s{number // 2}",) if place == 2 and number else ()
            node = step(f"{name}.{place}", below, *others, stage=name)
            outlooks.append(miss(node, expected=Expected(1.0, 0.5, 2.0, 3)) if number % 2 else hit(node))
            if number % 2:
                spans.append(RunSpan(node.id, float(place), place + 1.0))
            below = node.id
        outlooks.append((waits if number % 2 else lambda node, _: hit(node))(stage(name, below), below))
        number += 1
    return forecast(*outlooks, spans=tuple(spans))
