"""Forecast: what a build would do, node by node, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cache.result import Result
    from compiler.graph import Node
    from compiler.reasons import Explained
    from compiler.records import Expected
    from compiler.schedule import RunSpan

HIT, MISS, DEPENDS = "hit", "miss", "depends"
LOCAL = "local"
"""Where a result is that this store has."""
REMOTE = "remote"
"""Where one is that only the team's cache has."""


class Outlook(NamedTuple):
    """What to expect of one node.

    status: hit, miss or depends. result: what a hit gives, None for sources and stages. expected: from earlier
    runs, also of a hit; None if there were none. if_same: of a node that depends: HIT or MISS, what becomes of it
    if all that it waits for comes out as it did before; "" if that is not known, and for all others. moved: bytes
    to be fetched before it can run. varies: paths that differed when it last ran twice on the same inputs. where:
    LOCAL for a result of this store, REMOTE for one of the team's, "" if there is none. same_as: the step that
    makes its result in the same build, being the same; then it is a hit, but waits as the other does; "" for all
    others. like: the step that it may come out the same as, once its inputs are known; "" for none.
    """

    node: Node
    status: str
    why: Explained
    recipe_key: str
    result: Result | None
    expected: Expected | None = None
    if_same: str = ""
    moved: int = 0
    varies: tuple[str, ...] = ()
    where: str = ""
    same_as: str = ""
    like: str = ""

    @property
    def is_open(self) -> bool:
        """Whether what stands on it has to wait."""
        return self.status != HIT or bool(self.same_as)

    @property
    def seconds(self) -> float | None:
        """What it will take: 0 for a hit, None if nothing is known."""
        if self.status == HIT:
            return 0.0
        return None if self.expected is None else self.expected.median


class Forecast(NamedTuple):
    """outlooks: in the graph's order. results: those that the build would start with. critical_path: ids of steps
    that run one after the other and take longest. seconds: of that path, as far as known. spans: when each step that
    may run would, as far as known. changed: paths that were assumed to have changed."""

    outlooks: tuple[Outlook, ...]
    results: dict[str, Result]
    critical_path: tuple[str, ...]
    seconds: float
    spans: tuple[RunSpan, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def wall_seconds(self) -> float:
        """Until the last step ends, with as many at the same time as the build may run."""
        return max((span.end for span in self.spans), default=0.0)

    @property
    def moved(self) -> int:
        """Bytes to be fetched in all."""
        return sum(outlook.moved for outlook in self.outlooks)

    def count(self, status: str) -> int:
        """Steps with this status; sources and stages are not counted."""
        return sum(1 for outlook in self.outlooks if outlook.node.is_step and outlook.status == status)

    @property
    def same(self) -> int:
        """Steps among the hits that take what another step of the build makes."""
        return sum(1 for outlook in self.outlooks if outlook.same_as)
