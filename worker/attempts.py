"""Attempts: a command that failed is tried again as often as its policy says, with a pause before each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from worker.action import Cancelled, CommandFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.action import Order
    from worker.output import Output

FIRST_PAUSE = 1.0
"""Seconds before the second attempt; each later pause is twice as long."""
LONGEST_PAUSE = 10.0
"""Seconds: what a server that comes back needs, and what people wait without wondering."""
LOOK_SECONDS = 0.05
"""How often a pause looks whether anybody still wants the result."""

_Made = TypeVar("_Made")


def attempts(run: Callable[[], _Made], order: Order, output: Output, stopped: Callable[[], bool]) -> _Made:
    """What `run` returns, which is called at most `order.retry` times more; each must begin from nothing.

    Raises the last CommandFailed, Cancelled, and at once whatever else `run` raises: another try does not help there.
    stopped: whether the executor kills what runs, so that a killed command is not begun again.
    """
    total = order.retry + 1
    for number in range(1, total + 1):
        try:
            return run()
        except CommandFailed as error:
            if total == 1 or stopped():
                raise
            if number == total:
                output.say(f"[attempt {number} of {total}: {error.message}]")
                error.tail = list(output.tail)
                raise
            pause = min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE)
            output.say(f"[attempt {number} of {total}: {error.message}; trying again in {pause:.0f} s]")
        _sleep(pause, order, stopped)
    raise AssertionError("a number of attempts below one")


def _sleep(seconds: float, order: Order, stopped: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if order.cancelled() or stopped():
            raise Cancelled
        time.sleep(min(left, LOOK_SECONDS))
