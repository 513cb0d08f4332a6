"""A plan as one page that needs nothing else: the graph drawn, times, and every node's details."""

from __future__ import annotations

import base64
import hashlib
import os
from html import escape
from typing import TYPE_CHECKING

from compiler.forecast import HIT
from compiler.progress.text import printable_lines, size_text
from compiler.views import phrases, plan_svg
from compiler.views.profile import profile

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook
    from compiler.session import Session

MAX_TEXT = 8000
"""Characters of one instruction on the page."""
MAX_DETAILS = 200
LEGEND = (
    '<p class="legend"><span class="hit">✓ hit</span> <span class="miss">▶ will run</span> '
    '<span class="depends">? depends on what those make</span> <span class="critical">critical path</span></p>'
)


def render(session: Session, forecast: Forecast, now: float) -> str:
    """The whole document. now: seconds since the epoch."""
    title = f"Plan of {phrases.one_line(session.project)}"
    return page(forecast, session.graph.target, title, str(session.options.platform), now)


def page(forecast: Forecast, target: str, title: str, platform: str, now: float) -> str:
    """The same from a forecast alone. target: id of a stage node."""
    style, script = _asset("plan.css"), _asset("plan.js")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    times = plan_svg.times(forecast)
    summary = [phrases.counts(forecast), phrases.duration(forecast)]
    most = max((period.running for period in profile(forecast.spans)), default=0)
    if summary[-1] and most:
        summary[-1] += f", at most {most} at once"
    if forecast.changed:
        summary.insert(0, phrases.changed(forecast))
    if forecast.critical_path:
        summary.append(f"critical path: {' → '.join(map(phrases.one_line, forecast.critical_path))}")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{style}</style></head><body>",
        f"<header><h1>{escape(title)}</h1>",
        f'<p class="meta">target {escape(phrases.one_line(target))} · {escape(phrases.one_line(platform))}</p>',
        *(f"<p>{escape(line)}</p>" for line in summary if line),
        LEGEND,
        "</header>",
        '<input type="checkbox" id="fit"><label for="fit"> fit to the width of the page</label>',
        f'<main><div class="canvas" tabindex="0">{plan_svg.graph(forecast, target)}</div>',
        '<aside id="panel" hidden></aside></main>',
        f"<section><h2>When each step would run</h2><div class=canvas>{times}</div></section>" if times else "",
        '<section class="nodes"><h2>All nodes</h2>',
        *(_details(outlook, number, now) for number, outlook in enumerate(forecast.outlooks)),
        f"</section><script>{script}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _details(outlook: Outlook, number: int, now: float) -> str:
    node, result = outlook.node, outlook.result
    text = printable_lines(node.text or node.kind)
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT} characters more)"
    rows = [("status", phrases.label(outlook) if node.is_step else outlook.status), ("why", outlook.why.text)]
    if outlook.if_same:
        rows.append(("if that stays the same", "a hit" if outlook.if_same == HIT else "it runs anyway"))
    if result is not None:
        when = phrases.ago(result.made_at, now) + phrases.where(outlook)
        made = f"{when} by {result.made_by}, took {phrases.seconds_phrase(result.seconds)}"
        rows.append(("made", made))
        if result.layer is not None and result.layer.tar is not None:
            rows.append(("layer", f"{size_text(result.layer.tar.size)}, {result.layer.diff_id}"))
    if outlook.expected is not None and outlook.status != HIT:
        runs = "one run" if outlook.expected.runs == 1 else f"{outlook.expected.runs} runs"
        rows.append(("expected", f"{phrases.about(outlook)} {phrases.spread(outlook)} after {runs}"))
    if outlook.moved:
        rows.append(("to fetch", size_text(outlook.moved)))
    if outlook.varies:
        rows.append(("not deterministic", phrases.unsteady(outlook, 20)))
    if node.span is not None:
        rows.append(("line", node.span.line_text))
    rows.append(("recipe key", outlook.recipe_key))
    if node.inputs:
        rows.append(("inputs", ", ".join(dict.fromkeys(node.inputs))))
    table = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(phrases.one_line(value))}</td></tr>" for name, value in rows
    )
    more = [escape(phrases.one_line(line)) for line in outlook.why.details[:MAX_DETAILS]]
    if len(outlook.why.details) > MAX_DETAILS:
        more.append(f"+{len(outlook.why.details) - MAX_DETAILS} more")
    listed = f"<pre class=details>{'<br>'.join(more)}</pre>" if more else ""
    head = f"{escape(phrases.one_line(node.id))} <small>{escape(phrases.cut(phrases.one_line(text), 80))}</small>"
    return (
        f'<details id="n{number}" class="{outlook.status}"><summary>{head}</summary>'
        f"<pre>{escape(text)}</pre><table>{table}</table>{listed}</details>"
    )


def _asset(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return file.read()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
