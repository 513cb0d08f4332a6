"""Hold: bytes that are on their way in, and count until it is known whether they were stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Hold:
    """For one `with`. At its end what is held was stored, unless `release` was called or an exception ends it."""

    def __init__(self, end: Callable[[bool], None] | None = None) -> None:
        """end: is told, once, whether it was stored; None for what nobody counts."""
        self._end = end

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._settle(stored=error is None)

    def release(self) -> None:
        """Nothing was stored, after all."""
        self._settle(stored=False)

    def _settle(self, *, stored: bool) -> None:
        end, self._end = self._end, None
        if end is not None:
            end(stored)
