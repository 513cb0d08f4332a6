"""Lookups are counted by hour, for those who may see them, and the counts outlive the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lmdb_store import LmdbStore
from cache.server import tally as tallies
from cache.server.meter import NoMeter
from cache.server.tally import HOUR, KEPT_HOURS, Tally

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    now = 1000.0 * HOUR

    def __call__(self) -> float:
        return self.now


def everything(_: str) -> bool:
    return True


def test_counts_outlive_the_server_and_go_in_the_end(tmp_path: Path) -> None:
    store, clock = LmdbStore(str(tmp_path / "s")), Clock()
    tally = Tally(store, NoMeter(), clock)
    tally.start()
    tally.asked("main", 3, 1)
    tally.asked("pr/1", 0, 2)
    clock.now += HOUR
    tally.asked("main", 1, 0)
    tally.stop()
    again = Tally(store, NoMeter(), clock)
    assert again.hours(everything) == {1000: (3, 3), 1001: (1, 0)}
    assert again.hours(lambda name: name == "main") == {1000: (3, 1), 1001: (1, 0)}
    assert again.hours(lambda _: False) == {}
    clock.now += KEPT_HOURS * HOUR
    again.asked("main", 1, 0)
    again.write()
    assert 1000 not in Tally(store, NoMeter(), clock).hours(everything)
    store.close()


def test_names_do_not_fill_the_memory(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path / "s"))
    tally = Tally(store, NoMeter(), Clock())
    for number in range(tallies.MAX_NAMESPACES + 50):
        tally.asked(f"n{number}", 1, 0)
    assert tally.hours(everything)[1000] == (tallies.MAX_NAMESPACES, 0)
    store.close()
