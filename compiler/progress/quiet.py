"""QuietReporter: shows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.progress.events import Event


class QuietReporter:
    """For builds whose only output is the digest, which the caller prints."""

    def report(self, event: Event) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
