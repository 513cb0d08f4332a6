"""Actions that need many different things: each kind costs every event a look, so that there are bounds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from driver import Driver, lease, leases, told, with_two_builds

from worker.fleet.commands import GiveUp, Lease
from worker.fleet.limits import MAX_KINDS, MAX_KINDS_PER_PERSON

TOO_MANY = "actions with too many different needs wait already"


@pytest.fixture
def fleet() -> Driver:
    made = with_two_builds()
    made.join("w1", memory=1 << 40)
    return made


def test_one_person_gets_so_many_kinds_and_others_theirs(fleet: Driver) -> None:
    first = fleet.want("b1", "first", memory=1)
    for number in range(2, MAX_KINDS_PER_PERSON + 1):
        assert told(fleet.want("b1", f"a{number}", memory=number)) == [("b1", "queued", "")]
    fleet.open("b3", "ann")
    assert fleet.want("b3", "more", memory=1 << 30) == [GiveUp(("b3",), "more", TOO_MANY)]
    assert fleet.text("more") == TOO_MANY
    assert told(fleet.want("b3", "same", memory=2)) == [("b3", "queued", "")], "of a kind that is there"
    assert told(fleet.want("b2", "more", memory=1 << 30)) == [("b2", "queued", "")], "it is somebody else's"
    fleet.finish("w1", lease(first))
    assert told(fleet.want("b3", "again", memory=1 << 31)) == [("b3", "queued", "")], "there is one less"


def test_there_are_so_many_kinds_in_all(fleet: Driver) -> None:
    people = MAX_KINDS // MAX_KINDS_PER_PERSON
    for person in range(people + 1):
        fleet.open(f"of{person}", f"p{person}")
    for number in range(MAX_KINDS):
        fleet.want(f"of{number % people}", f"a{number}", memory=number)
    assert fleet.want(f"of{people}", "more", memory=1 << 30) == [GiveUp((f"of{people}",), "more", TOO_MANY)]
    assert len(fleet.scheduler._book.pools) == MAX_KINDS


def test_what_workers_gave_back_is_nobodys_kind(fleet: Driver) -> None:
    for number in range(2, MAX_KINDS_PER_PERSON + 2):
        fleet.join(f"w{number}", memory=1 << 40)
    given = [fleet.want("b1", f"a{number}", memory=number) for number in range(MAX_KINDS_PER_PERSON)]
    for commands in given:
        (command,) = [each for each in commands if isinstance(each, Lease)]
        fleet.give_back(command.worker, command.lease)
    assert leases(fleet.want("b1", "more", memory=1 << 30)), "nothing of those kinds is there any more"
