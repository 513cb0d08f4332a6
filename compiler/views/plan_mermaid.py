"""A plan as a Mermaid flowchart, which GitHub and GitLab draw in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.forecast import DEPENDS, HIT, MISS
from compiler.views import phrases
from compiler.views.arrange import arrange, critical_edges

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook

_STYLES = (
    f"classDef {HIT} fill:#d7f0dd,stroke:#3c8d57,color:#111",
    f"classDef {MISS} fill:#ffe0b0,stroke:#b06a00,color:#111",
    f"classDef {DEPENDS} fill:#d6e9f8,stroke:#2f6fa8,color:#111",
    "classDef critical stroke-width:3px",
    "classDef target stroke-dasharray:5 3",
)


def render(forecast: Forecast, target: str) -> str:
    """The whole document, without a Markdown fence. target: id of a stage node."""
    arranged = arrange(forecast)
    numbers = {outlook.node.id: f"n{number}" for number, outlook in enumerate(forecast.outlooks)}
    lines = ["flowchart TB"]
    lines += [f"  {_node(outlook, numbers)}" for outlook in arranged.sources]
    for number, stage in enumerate(arranged.stages):
        lines.append(f"  subgraph s{number}[{label(f'stage {stage.name}')}]")
        lines += [f"    {_node(outlook, numbers)}" for outlook in (*stage.steps, stage.end)]
        lines.append("  end")
    thick = critical_edges(forecast, target)
    for outlook in forecast.outlooks:
        for name in dict.fromkeys(outlook.node.inputs):
            arrow = "==>" if (name, outlook.node.id) in thick else "-->"
            lines.append(f"  {numbers[name]} {arrow} {numbers[outlook.node.id]}")
    lines += [f"  {style}" for style in _STYLES]
    critical = [numbers[name] for name in forecast.critical_path]
    if critical:
        lines.append(f"  class {','.join(critical)} critical")
    if target in numbers:
        lines.append(f"  class {numbers[target]} target")
    return "\n".join([*lines, ""])


def _node(outlook: Outlook, numbers: dict[str, str]) -> str:
    return f"{numbers[outlook.node.id]}[{label(*phrases.boxed(outlook))}]:::{outlook.status}"


def label(*lines: str) -> str:
    """A quoted label; whatever Mermaid or a browser could take for more than text is an entity."""
    return '"' + "<br/>".join("".join(map(_escaped, phrases.one_line(line))) for line in lines) + '"'


def _escaped(character: str) -> str:
    # Not the colon: Mermaid takes the last semicolon, an entity's, off lines that look like `style…:…#…;`.
    plain = character.isalnum() or character in " .,/-_=+·…@"
    return character if plain else f"#{ord(character)};"
