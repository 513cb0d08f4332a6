"""The version of this program."""

from __future__ import annotations


def version() -> str:
    """As the installed package says; looked up only when asked, since importlib.metadata takes 60 ms."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("buildgraph")
    except PackageNotFoundError:
        return "(not installed)"
