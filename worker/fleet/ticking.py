"""Ticking: the thread by which time passes for the scheduler, and that looks after streams and who has gone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker.fleet.build_stream import close
from worker.fleet.events import Tick
from worker.fleet.service_limits import AWAY_SECONDS, LINGER_SECONDS, REVIEW_SECONDS, STUCK_SECONDS, TICK_SECONDS

if TYPE_CHECKING:
    from worker.fleet.desk import Desk
    from worker.fleet.gate import Gate


class Ticking:
    """Runs from `start` to `stop`."""

    def __init__(self, desk: Desk, gate: Gate, away_seconds: float = AWAY_SECONDS) -> None:
        self._desk = desk
        self._gate = gate
        self._away_seconds = away_seconds
        self._stop = threading.Event()
        self._reviewed = desk.now()
        self._thread = threading.Thread(target=self._run, name="fleet-ticks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(min(TICK_SECONDS, self._away_seconds)):
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001, leases have to expire whatever else is wrong
                self._desk.say("error", text=f"{type(error).__name__}: {error}")

    def tick(self) -> None:
        """What is due now."""
        desk = self._desk
        with desk.lock:
            now = desk.now()
            desk.handle(Tick(now))
            self._forget_builds(now)
            self._forget_workers(now)
        self._gate.end_stuck(STUCK_SECONDS)
        if now - self._reviewed >= REVIEW_SECONDS:
            self._reviewed = now
            self._gate.review()

    def _forget_builds(self, now: float) -> None:
        gone = [
            build for build in self._desk.builds.values()
            if build.away_since is not None and now - build.away_since >= self._away_seconds
        ]  # fmt: skip
        for build in gone:
            close(self._desk, build)

    def _forget_workers(self, now: float) -> None:
        desk = self._desk
        for worker in tuple(desk.workers.values()):
            if worker.left is None or now - worker.left < LINGER_SECONDS:
                continue
            del desk.workers[worker.name]
            desk.changes += 1
            for lease in [each for each in desk.leases.values() if each.worker == worker.name]:
                desk.drop_lease(lease)
