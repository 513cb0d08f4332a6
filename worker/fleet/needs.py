"""Needs: what an action asks of the worker that executes it; Kind: the part of it that is not negotiable."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Needs(NamedTuple):
    """platform: `linux/amd64`, "" for any. memory: bytes, 0 if not known. layers: (diff_id, bytes) of its inputs.
    caches: ids of its cache mounts. seconds: expected, None if nobody ever timed it. critical: expected seconds from
    its start to the end of its build, itself included. labels: a worker must have all of them. workers: Ed25519 keys,
    one of which a worker must have; none for any.
    """

    platform: str = ""
    memory: int = 0
    layers: tuple[tuple[str, int], ...] = ()
    caches: tuple[str, ...] = ()
    seconds: float | None = None
    critical: float = 0.0
    labels: Mapping[str, str] = {}
    workers: frozenset[bytes] = frozenset()


class Kind(NamedTuple):
    """Actions of one kind may go to the same workers. labels: sorted. tried: workers that gave an action back.
    workers: as in `Needs`."""

    platform: str = ""
    memory: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    tried: frozenset[str] = frozenset()
    workers: frozenset[bytes] = frozenset()


def kind_of(needs: Needs, tried: frozenset[str] = frozenset()) -> Kind:
    """The kind of an action with these needs that `tried` gave back."""
    return Kind(needs.platform, needs.memory, tuple(sorted(needs.labels.items())), tried, needs.workers)
