"""Action names: what the scheduler calls an action of a key; builds that ask for it in the same way share one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import encoding

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_MARK = "+"
"""Between a key and what sets its action apart; no key has one."""


def action_name(
    key: str, build: str = "", workers: Collection[bytes] = (), labels: Mapping[str, str] | None = None
) -> str:
    """The key alone for a result that anybody may make and that all builds may have.

    build: the only one that it is for, as what is there does not do; "" for all that ask alike. workers, labels: as in
    `Needs`: what one of them makes may be of no use to a build that named others.
    """
    parts: list[object] = [build, sorted(each.hex() for each in workers), sorted((labels or {}).items())]
    return f"{key}{_MARK}{encoding.key('asked', parts)[:32]}" if any(parts) else key


def named_key(name: str) -> str:
    """The key of an action by its name, also by one in a namespace."""
    return name.rpartition("\0")[2].partition(_MARK)[0]
