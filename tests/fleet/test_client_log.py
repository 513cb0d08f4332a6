"""What a command prints on a worker, as its build shows and keeps it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from buildgraph.v1 import fleet_pb2
from hypothesis import given
from hypothesis import strategies as st

from cache.digest import Digest
from compiler.fleet.fleet_log import KEPT, FleetLog
from compiler.fleet.link import Watch
from compiler.fleet.placed_executor import PlacedExecutor, Wish, _Turn
from worker.action import Order

if TYPE_CHECKING:
    from pathlib import Path


def log_in(directory: Path) -> tuple[FleetLog, list[str]]:
    shown: list[str] = []
    return FleetLog(str(directory / "log"), shown.append), shown


@given(st.lists(st.binary(max_size=30), max_size=12))
def test_lines_are_shown_whole_however_they_are_cut(pieces: list[bytes]) -> None:
    shown: list[str] = []
    log = FleetLog("/nowhere/log", shown.append)
    for piece in pieces:
        log.add(piece)
    log.close()
    text = b"".join(pieces)
    lines = text.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    assert shown == [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
    assert log.whole(Digest.of(text)) == text


def test_a_replay_shows_nothing_twice(tmp_path: Path) -> None:
    log, shown = log_in(tmp_path)
    log.add(b"one\ntw")
    log.replay()
    for piece in (b"on", b"e\ntwo\n", b"three\n"):
        log.add(piece)
    assert shown == ["one", "two", "three"]
    assert log.whole(Digest.of(b"one\ntwo\nthree\n")) == b"one\ntwo\nthree\n"
    log.close()


def test_a_command_that_begins_again_has_a_new_log(tmp_path: Path) -> None:
    log, shown = log_in(tmp_path)
    log.add(b"first\nhalf")
    log.restart()
    log.add(b"first\nsecond\n")
    assert shown == ["first", "half", "first", "second"]
    assert log.whole(Digest.of(b"first\nsecond\n")) is not None
    log.close()


def test_a_log_that_begins_anew_takes_the_place_of_what_came(tmp_path: Path) -> None:
    log, shown = log_in(tmp_path)
    watch = Watch(fleet_pb2.ExecuteAction())
    for data, lease in ((b"one\ntwo\nha", "1"), (b"one\n", "2"), (b"two\nthree\n", "2")):
        watch.tell(fleet_pb2.BuildEvent(log=fleet_pb2.ActionLog(data=data, lease=lease)))
    watch.tell(fleet_pb2.BuildEvent(done=fleet_pb2.ActionDone(worker="w2")))
    remote = SimpleNamespace(settings=SimpleNamespace(write="main", origin="server:8980"))
    client = PlacedExecutor(None, None, None, remote, None)  # type: ignore[arg-type]  # nothing of them is used
    done = client._follow(_Turn(watch, Order({}, {}, {}, shown.append, lambda: False), Wish(), log))
    assert done is not None
    assert shown == ["one", "two", "ha", "one", "two", "three"]
    assert log.whole(Digest.of(b"one\ntwo\nthree\n")) == b"one\ntwo\nthree\n", "as the result has it"
    log.close()


@pytest.mark.parametrize(("lease", "then"), [("1", ["three"]), ("2", ["two", "three"])])
def test_after_a_broken_stream_a_log_goes_on_and_one_of_another_lease_begins(tmp_path: Path, lease: str, then: list[str]) -> None:
    log, shown = log_in(tmp_path)
    turn = _Turn(Watch(fleet_pb2.ExecuteAction()), Order({}, {}, {}, shown.append, lambda: False), Wish(), log)
    turn.logged(fleet_pb2.ActionLog(data=b"one\ntwo\n", lease="1"))
    turn.reopened()
    whole = b"one\ntwo\nthree\n" if lease == "1" else b"two\nthree\n"
    turn.logged(fleet_pb2.ActionLog(data=whole, lease=lease))
    assert shown == ["one", "two", *then]
    assert log.whole(Digest.of(whole)) == whole
    log.close()


def test_what_did_not_all_come_is_not_taken_for_the_log(tmp_path: Path) -> None:
    log, _ = log_in(tmp_path)
    log.add(b"one\n")
    assert log.whole(Digest.of(b"one\ntwo\n")) is None
    assert log.whole(Digest(Digest.of(b"two\n").hash, 4)) is None
    log.add(b"x" * KEPT)
    assert log.whole(Digest.of(b"one\n" + b"x" * KEPT)) is None, "and a long one is not held in memory"
    log.close()


def test_what_did_not_come_is_shown_in_the_end(tmp_path: Path) -> None:
    log, shown = log_in(tmp_path)
    log.add(b"one\ntw")
    log.replay()
    log.complete(b"one\ntwo\nthree\n")
    assert shown == ["one", "two", "three"]
    log.complete(b"one\ntwo\nthree\n")
    log.complete(b"another\n")
    assert shown == ["one", "two", "three"]
    log.close()


def test_others_on_the_store_can_follow_it_until_it_ends(tmp_path: Path) -> None:
    log, _ = log_in(tmp_path)
    log.add(b"one\n")
    log.add(b"two")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo"
    log.close()
    assert not (tmp_path / "log").exists()
