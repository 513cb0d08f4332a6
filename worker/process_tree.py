"""Which processes descend from another, as /proc tells it."""

from __future__ import annotations

import contextlib
import os


def descendants(pid: int) -> list[int]:
    """Processes below this one that still run, parents before children. One that begins meanwhile may be missed."""
    children: dict[int, list[int]] = {}
    ended: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            with open(f"/proc/{name}/stat", "rb") as file:
                # "pid (any name, also with brackets) state parent …", proc(5)
                state, parent = file.read().rpartition(b")")[2].split()[:2]
            children.setdefault(int(parent), []).append(int(name))
            if state in b"ZX":
                ended.add(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, ())
    return [each for each in found[1:] if each not in ended]
