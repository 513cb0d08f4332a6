"""Templates: HTML out of values that anybody may have written. The only file that imports jinja2."""

from __future__ import annotations

import functools
import os

import jinja2
import markupsafe

from compiler.progress.text import size_text
from compiler.views.phrases import ago, cut, one_line, seconds_phrase

MAX_TEXT = 300
"""Columns of a text on a page; what is longer ends in an ellipsis."""


def safe(html: str) -> object:
    """HTML of ours, with everything in it escaped already, which templates take as it is."""
    return markupsafe.Markup(html)  # noqa: S704  # that is what it says


def render(name: str, **values: object) -> bytes:
    """A page. Texts are made harmless and escaped."""
    return _environment().get_template(name).render(values).encode("utf-8", "replace")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        size=size_text,
        seconds=lambda value: seconds_phrase(max(0.0, value)),
        ago=ago,
        cut=lambda text, width: cut(one_line(text), width),
    )
    return environment


def _harmless(value: object) -> object:
    """No control characters, none that turn the direction of a text, and not too much of it."""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return cut(one_line(value), MAX_TEXT)
    return value
