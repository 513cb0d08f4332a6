"""A plan in Graphviz's language: stages as clusters, colours for what happens, the critical path bold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.forecast import DEPENDS, HIT, MISS
from compiler.views import phrases
from compiler.views.arrange import arrange, critical_edges

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook

FILL = {HIT: "#d7f0dd", MISS: "#ffe0b0", DEPENDS: "#d6e9f8"}
TOOLTIP = 300
"""Characters of what a pointer over a box shows."""


def render(forecast: Forecast, target: str) -> str:
    """The whole document. target: id of a stage node, drawn with a double border."""
    arranged = arrange(forecast)
    critical, thick = set(forecast.critical_path), critical_edges(forecast, target)
    lines = [
        "digraph buildgraph {",
        '  rankdir=TB; node [shape=box style="filled,rounded" fontname="sans-serif" fontsize=10];',
    ]
    lines += [f"  {_node(outlook, target, critical)}" for outlook in arranged.sources]
    for number, stage in enumerate(arranged.stages):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={quoted(f'stage {stage.name}')}; style=rounded; color=gray;")
        lines += [f"    {_node(outlook, target, critical)}" for outlook in (*stage.steps, stage.end)]
        lines.append("  }")
    for outlook in forecast.outlooks:
        for name in dict.fromkeys(outlook.node.inputs):
            bold = " [penwidth=2.5]" if (name, outlook.node.id) in thick else ""
            lines.append(f"  {quoted(name)} -> {quoted(outlook.node.id)}{bold};")
    return "\n".join([*lines, "}", ""])


def _node(outlook: Outlook, target: str, critical: set[str]) -> str:
    node = outlook.node
    tooltip = phrases.cut(phrases.one_line(f"{node.text} - {outlook.why.text}"), TOOLTIP)
    label = quoted(*phrases.boxed(outlook))
    words = [f"label={label}", f'fillcolor="{FILL[outlook.status]}"', f"tooltip={quoted(tooltip)}"]
    if node.id in critical:
        words.append("penwidth=2.5")
    if node.id == target:
        words.append("peripheries=2")
    return f"{quoted(node.id)} [{' '.join(words)}];"


def quoted(*lines: str) -> str:
    """A string of the language; lines are set below each other. Graphviz would read `&lt;` in a label as `<`."""
    return '"' + "\\n".join(map(_escaped, lines)) + '"'


def _escaped(line: str) -> str:
    return phrases.one_line(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
