"""Which words of a Dockerfile or command line mean a git repository."""

from __future__ import annotations

import re

_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:(?!//).+")


def is_git(word: str) -> bool:
    """Whether a source is a git repository: by its scheme, or an http(s) URL whose path ends in `.git`."""
    if word.startswith(("git://", "ssh://")) or _SCP.fullmatch(word):
        return True
    path = word.partition("#")[0].partition("?")[0]
    return word.lower().startswith(("http://", "https://")) and path.endswith(".git")
