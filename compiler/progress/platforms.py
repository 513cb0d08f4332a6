"""Several platforms in one view: each step's title says which one it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.progress.events import Announced, Ended, Task, Warned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.progress.events import Event, Reporter


def platform_reporters(reporter: Reporter, platforms: Sequence[str]) -> list[Reporter]:
    """A reporter for each platform that writes to the one view; with one platform the view itself."""
    if len(platforms) == 1:
        return [reporter]
    numbers = _Numbers()
    return [_PlatformReporter(reporter, platform, numbers) for platform in platforms]


class _Numbers:
    """Hands out the numbers of steps, which are one row over all platforms."""

    def __init__(self) -> None:
        self.next = 1


class _PlatformReporter:
    def __init__(self, reporter: Reporter, platform: str, numbers: _Numbers) -> None:
        self._reporter = reporter
        self._platform = platform
        self._numbers = numbers

    def report(self, event: Event) -> None:
        if isinstance(event, Announced):
            nodes = []
            for node in event.nodes:
                title = f"{self._platform} {node.title}"
                inputs = tuple(map(self._id, node.inputs))
                nodes.append(
                    node._replace(id=self._id(node.id), number=self._numbers.next, title=title, inputs=inputs)
                )
                self._numbers.next += 1
            event = Announced(tuple(nodes))
        elif not isinstance(event, Task | Warned | Ended):
            event = event._replace(id=self._id(event.id))
        self._reporter.report(event)

    def close(self) -> None:
        """The view is closed by whoever opened it."""

    def _id(self, node: str) -> str:
        return f"{self._platform} {node}"
