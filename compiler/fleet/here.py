"""Here: this machine as one more worker of its own build: as many actions at the same time as it has slots."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from cache.errors import RemoteError
from worker.action import Cancelled
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.errors import BuildgraphError
    from cache.result import Result
    from worker.action import Action, Order
    from worker.execute import Executor

LOOK_SECONDS = 0.05
"""How often an action that waits for a slot looks whether anybody still wants it."""


class Here:
    """May be called from several threads at once."""

    def __init__(
        self, executor: Executor, jobs: int, local_slots: int | None, unready: BuildgraphError | None = None
    ) -> None:
        """jobs: actions at the same time; local_slots: RUNs among them, None for no other bound. unready: why this
        machine cannot execute RUNs."""
        self._executor = executor
        self._unready = unready
        self.local_slots = local_slots
        self._jobs = threading.Semaphore(jobs)
        self._runs = threading.Semaphore(jobs if local_slots is None else local_slots)

    def execute(self, action: Action, order: Order, why: str = "") -> Result:
        """As `Executor.execute`. why: a RUN was not given to the fleet. Raises RemoteError for one that may not run."""
        if not isinstance(action.operation, Run):
            with self._held(order, self._jobs):
                return self._executor.execute(action, order)
        if self.local_slots == 0:
            hint = "start workers with `buildgraph worker --join`, or build with --local-slots 1"
            text = why or "there is no fleet that would take the step"
            raise RemoteError(f"{text}; --local-slots 0 lets no command run on this machine", hint=hint)
        if self._unready is not None:
            raise self._unready
        with self._held(order, self._runs), self._held(order, self._jobs):
            return self._executor.execute(action, order)

    def take_slot(self) -> bool:
        """Take a slot for a RUN that waits elsewhere, if one is free and lent; `execute_taken` gives it back."""
        if not self.local_slots or self._unready is not None or not self._runs.acquire(blocking=False):
            return False
        if not self._jobs.acquire(blocking=False):
            self._runs.release()
            return False
        return True

    def execute_taken(self, action: Action, order: Order) -> Result:
        """The same in a slot that was taken."""
        try:
            return self._executor.execute(action, order)
        finally:
            self._jobs.release()
            self._runs.release()

    @staticmethod
    @contextlib.contextmanager
    def _held(order: Order, slots: threading.Semaphore) -> Iterator[None]:
        while not slots.acquire(timeout=LOOK_SECONDS):
            if order.cancelled():
                raise Cancelled
        try:
            yield
        finally:
            slots.release()

    def stop(self) -> None:
        """Kill whatever runs; what waits ends with it."""
        self._executor.stop()

    def close(self) -> None:
        self._executor.close()
