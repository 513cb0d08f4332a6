"""What becomes of leases: late ones, expired ones, those given back, and those that a restarted scheduler finds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from driver import MB, Driver, lease, leases, told, with_two_builds

from worker.fleet.commands import GiveUp, Refuse, Revoke, Settle, Tell
from worker.fleet.decisions import Why
from worker.fleet.limits import (
    LATE_UNKNOWN,
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    MAX_LEAVINGS,
    NOBODY_SECONDS,
    ORPHAN_SECONDS,
)


@pytest.fixture
def fleet() -> Driver:
    return with_two_builds()


def test_what_is_late_is_given_to_a_second_worker_and_the_first_result_wins(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.join("w2")
    first = lease(fleet.want("b1", "a", seconds=10.0))
    assert leases(fleet.after(19, "w1", "w2")) == []
    second = fleet.after(1, "w1", "w2")
    assert leases(second) == [("a", "w2")]
    assert fleet.text("a") == "late: it runs on w1 longer than expected, so w2 makes it, too"
    fleet.join("w3")
    assert leases(fleet.after(100, "w1", "w2", "w3")) == [], "never more than two"
    settled = fleet.finish("w2", lease(second))
    assert settled == [Settle("a", lease(second), "w2", ("b1",)), Revoke("w1", first, "w2 was first")]
    assert fleet.finish("w1", first) == [Refuse("w1", first, Why.NOT_HELD.sentence())]


def test_who_is_late_gets_another_second_worker_if_the_first_one_gives_back(fleet: Driver) -> None:
    for worker in ("w1", "w2", "w3"):
        fleet.join(worker)
    first = lease(fleet.want("b1", "a", seconds=1.0))
    second = fleet.after(12, "w1", "w2", "w3")
    assert leases(second) == [("a", "w2")]
    third = fleet.give_back("w2", lease(second))
    assert leases(third) == [("a", "w3")]
    assert fleet.finish("w3", lease(third)) == [
        Settle("a", lease(third), "w3", ("b1",)),
        Revoke("w1", first, "w3 was first"),
    ]


@pytest.mark.parametrize("dead", ["w1", "w2"])
def test_who_is_late_gets_another_second_worker_if_one_of_two_dies(fleet: Driver, dead: str) -> None:
    for worker in ("w1", "w2", "w3"):
        fleet.join(worker)
    fleet.want("b1", "a", seconds=1.0)
    assert leases(fleet.after(12, "w1", "w2", "w3")) == [("a", "w2")]
    fleet.left(dead)
    alive = {"w1", "w2", "w3"} - {dead}
    assert leases(fleet.after(LEASE_SECONDS + 1, *sorted(alive))) == [("a", "w3")], "the other one may hang"


def test_what_ends_workers_gets_no_further_second_ones(fleet: Driver) -> None:
    for number in range(MAX_ATTEMPTS + 3):
        fleet.join(f"w{number}")
    fleet.want("b1", "a", seconds=1.0)
    given = fleet.after(12, *(f"w{number}" for number in range(MAX_ATTEMPTS + 3)))
    for _ in range(MAX_ATTEMPTS):
        ((_, worker),) = leases(given)
        given = fleet.give_back(worker, lease(given))
    assert leases(given + fleet.after(100, "w0")) == []


def test_what_waits_goes_before_what_is_late(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.want("b1", "a")
    fleet.want("b1", "b")
    fleet.after(LATE_UNKNOWN + 1, "w1")
    assert leases(fleet.join("w2")) == [("b", "w2")]
    assert leases(fleet.join("w3")) == [("a", "w3")]


def test_an_expired_lease_puts_the_action_back_to_its_place(fleet: Driver) -> None:
    fleet.join("w1")
    first = lease(fleet.want("b1", "a"))
    fleet.want("b1", "later")
    back = fleet.after(LEASE_SECONDS)
    assert back == [Tell("b1", "a", "again", "", "the lease of w1 expired")]
    assert leases(fleet.join("w2")) == [("a", "w2")], "w1 is not heard of, and gets nothing"
    assert leases(fleet.renew("w1")) == [("later", "w1")]
    assert fleet.finish("w1", first)[0] == Settle("a", first, "w1", ("b1",)), "late, but nobody else has finished"


def test_a_worker_that_still_works_on_an_expired_lease_goes_on(fleet: Driver) -> None:
    fleet.join("w1")
    first = lease(fleet.want("b1", "a"))
    fleet.after(LEASE_SECONDS)
    assert fleet.renew("w1", first) == [Tell("b1", "a", "started", "w1", "w1 came back with it")]
    assert leases(fleet.join("w2")) == []
    assert fleet.finish("w1", first) == [Settle("a", first, "w1", ("b1",))]


def test_a_second_start_on_the_same_worker_helps_nobody(fleet: Driver) -> None:
    fleet.join("w1", slots=2)
    fleet.want("b1", "a", seconds=1.0)
    assert leases(fleet.after(100, "w1")) == []


def test_an_expired_lease_does_not_come_back_as_a_third_one(fleet: Driver) -> None:
    fleet.join("w1")
    first = lease(fleet.want("b1", "a", seconds=5.0))
    fleet.after(LEASE_SECONDS)
    fleet.join("w2")
    fleet.join("w3")
    assert leases(fleet.after(10, "w2", "w3")) == [("a", "w3")], "w2 has it, and is late"
    assert fleet.renew("w1", first) == [Revoke("w1", first, Why.NOT_HELD.sentence())]
    assert fleet.finish("w1", first) == [Refuse("w1", first, Why.NOT_HELD.sentence())]


def test_an_expired_lease_does_not_come_back_where_there_is_no_memory(fleet: Driver) -> None:
    fleet.join("w1", slots=2, memory=1000)
    first = lease(fleet.want("b1", "a", memory=600))
    fleet.want("b1", "b", memory=600, critical=9.0)
    fleet.after(LEASE_SECONDS)
    assert leases(fleet.renew("w1")) == [("b", "w1")], "alive, and it says nothing of the lease"
    assert fleet.renew("w1", first) == [Revoke("w1", first, Why.NOT_HELD.sentence())]


def test_an_expired_lease_does_not_come_back_where_the_action_runs_again(fleet: Driver) -> None:
    fleet.join("w1", slots=2)
    first = lease(fleet.want("b1", "a"))
    fleet.after(LEASE_SECONDS)
    assert leases(fleet.renew("w1")) == [("a", "w1")]
    assert fleet.renew("w1", first) == [Revoke("w1", first, Why.NOT_HELD.sentence())]


def test_what_is_given_back_may_wait_for_layers_again(fleet: Driver) -> None:
    fleet.join("w1", layers=("huge",))
    fleet.join("w2")
    huge = (("huge", 500 * MB),)
    first = lease(fleet.want("b1", "first", layers=huge, seconds=2.0))
    fleet.want("b1", "second", layers=huge, seconds=2.0)
    given = fleet.after(6.0, "w1", "w2")
    assert leases(given) == [("second", "w2")], "it waited long enough"
    fleet.join("w3")
    fleet.finish("w1", first)
    fleet.want("b1", "third", layers=huge, seconds=2.0)
    assert leases(fleet.give_back("w2", lease(given))) == [], "w1 has them and will be free soon"


def test_renewal_keeps_a_lease(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.want("b1", "a", seconds=1000.0)
    assert fleet.after(5 * LEASE_SECONDS, "w1") == []


def test_what_a_worker_gave_back_goes_to_another_one(fleet: Driver) -> None:
    fleet.join("w1", slots=5)
    fleet.join("w2", slots=1, layers=("x",))
    first = fleet.want("b1", "a", layers=(("x", MB),))
    assert leases(first) == [("a", "w2")]
    again = fleet.give_back("w2", lease(first))
    assert again[0] == Tell("b1", "a", "again", "", "w2 gave it back: no space left")
    assert leases(again) == [("a", "w1")]
    last = fleet.give_back("w1", lease(again), "x" * 1000)
    assert last[-1] == GiveUp(("b1",), "a", "every worker that may take it gave it back")
    assert len(fleet.scheduler.explain("a")[-2].text) < 250
    assert leases(fleet.want("b1", "b", layers=(("x", MB),))) == [("b", "w2")], "for another action it is as good as any"


def test_a_worker_that_was_stopped_gets_the_action_again_after_its_restart(fleet: Driver) -> None:
    fleet.join("w1", slots=2)
    fleet.after(2 * NOBODY_SECONDS, "w1")
    given = fleet.want("b1", "a")
    for _ in range(MAX_ATTEMPTS + 2):
        back = fleet.give_back("w1", lease(given), "the worker was stopped", leaving=True)
        assert back == [Tell("b1", "a", "again", "", "w1 gave it back: the worker was stopped")]
        assert fleet.renew("w1") == [], "it is about to leave"
        assert fleet.want("b2", "a") == [Tell("b2", "a", "queued", "", "the workers that may take it are away or silent")]
        fleet.unwant("b2", "a")
        fleet.left("w1")
        assert fleet.after(NOBODY_SECONDS - 1) == []
        given = fleet.join("w1", slots=2)
        assert leases(given) == [("a", "w1")]


def test_what_a_worker_that_leaves_gave_back_goes_to_another_one(fleet: Driver) -> None:
    fleet.join("w1")
    given = fleet.want("b1", "a")
    fleet.join("w2")
    assert leases(fleet.give_back("w1", lease(given), leaving=True)) == [("a", "w2")]


def test_a_worker_that_says_that_it_leaves_and_stays_is_not_waited_for(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.after(2 * NOBODY_SECONDS, "w1")
    fleet.give_back("w1", lease(fleet.want("b1", "a")), leaving=True)
    assert fleet.after(NOBODY_SECONDS - 1, "w1") == []
    assert fleet.after(1, "w1") == [GiveUp(("b1",), "a", "the workers that may take it did not come back")]


def test_workers_that_leave_again_and_again_do_not_keep_an_action_for_ever(fleet: Driver) -> None:
    commands = [*fleet.join("w1"), *fleet.want("b1", "a")]
    for _ in range(MAX_LEAVINGS):
        fleet.give_back("w1", lease(commands), leaving=True)
        commands = fleet.join("w1")
    assert fleet.give_back("w1", lease(commands), leaving=True)[-1] == GiveUp(
        ("b1",), "a", "every worker that may take it gave it back"
    )


def test_an_action_that_ends_workers_is_given_up(fleet: Driver) -> None:
    for number in range(MAX_ATTEMPTS + 2):
        fleet.join(f"w{number}")
    commands = fleet.want("b1", "a")
    for _ in range(MAX_ATTEMPTS):
        ((_, worker),) = leases(commands)
        fleet.left(worker)
        commands = fleet.after(LEASE_SECONDS)
    assert commands[-1] == GiveUp(("b1",), "a", f"{MAX_ATTEMPTS} workers ended without a result")


def test_a_worker_that_comes_back_each_time_is_not_a_worker_that_ended(fleet: Driver) -> None:
    fleet.join("w1")
    name = lease(fleet.want("b1", "a", seconds=7200.0))
    for _ in range(MAX_ATTEMPTS + 2):
        assert not [each for each in fleet.after(LEASE_SECONDS + 2) if isinstance(each, GiveUp)], "its network was cut"
        assert fleet.renew("w1", name) == [Tell("b1", "a", "started", "w1", "w1 came back with it")]
        assert fleet.after(300, "w1") == []
    assert fleet.finish("w1", name) == [Settle("a", name, "w1", ("b1",))]


def lose_all_but_the_last(fleet: Driver) -> str:
    """The lease that is the last attempt at "a", of a worker that is there and renews no more."""
    for number in range(MAX_ATTEMPTS):
        fleet.join(f"w{number}")
    commands = fleet.want("b1", "a", seconds=7200.0)
    for number in range(MAX_ATTEMPTS - 1):
        assert leases(commands) == [("a", f"w{number}")]
        fleet.left(f"w{number}")
        commands = fleet.after(LEASE_SECONDS)
    last = lease(commands)
    assert fleet.after(LEASE_SECONDS) == [Tell("b1", "a", "again", "", f"the lease of w{MAX_ATTEMPTS - 1} expired")]
    return last


def test_the_last_one_may_come_back_before_the_action_is_given_up(fleet: Driver) -> None:
    last, worker = lose_all_but_the_last(fleet), f"w{MAX_ATTEMPTS - 1}"
    assert leases(fleet.join("another")) == [], "it would be one attempt too many"
    expired = f"the lease of {worker} expired"
    assert fleet.want("b2", "a") == [Tell("b2", "a", "queued", "", expired)]
    assert fleet.after(NOBODY_SECONDS - 1) == []
    back = fleet.renew(worker, last)
    assert told(back) == [("b1", "started", worker), ("b2", "started", worker)]
    assert fleet.after(300, worker) == []
    assert fleet.finish(worker, last) == [Settle("a", last, worker, ("b1", "b2"))]


def test_the_last_one_is_not_waited_for_for_ever(fleet: Driver) -> None:
    last, worker = lose_all_but_the_last(fleet), f"w{MAX_ATTEMPTS - 1}"
    assert fleet.after(NOBODY_SECONDS - 1) == []
    assert fleet.after(1) == [GiveUp(("b1",), "a", f"{MAX_ATTEMPTS} workers ended without a result")]
    assert fleet.finish(worker, last) == [Refuse(worker, last, Why.NOT_HELD.sentence())]


def test_what_was_given_back_late_is_not_waited_for(fleet: Driver) -> None:
    last, worker = lose_all_but_the_last(fleet), f"w{MAX_ATTEMPTS - 1}"
    assert fleet.give_back(worker, last) == [GiveUp(("b1",), "a", f"{MAX_ATTEMPTS} workers ended without a result")]
    assert not fleet.scheduler.snapshot().queue_length


def test_a_worker_that_left_hears_nothing_and_may_come_back_with_its_lease(fleet: Driver) -> None:
    fleet.join("w1")
    name = lease(fleet.want("b1", "a"))
    fleet.left("w1")
    fleet.now += 5
    assert fleet.join("w1", leases=((name, "a", 5.0),)) == []
    fleet.left("w1")
    assert fleet.close("b1") == [], "the revocation cannot be said"
    assert fleet.join("w1", leases=((name, "a", 6.0),)) == [Revoke("w1", name, Why.NOT_HELD.sentence())]


def test_a_worker_that_comes_back_without_its_lease_gets_the_action_again(fleet: Driver) -> None:
    fleet.join("w1")
    first = lease(fleet.want("b1", "a"))
    again = fleet.join("w1")
    assert again[0] == Tell("b1", "a", "again", "", "w1 came back without it")
    assert leases(again) == [("a", "w1")]
    assert lease(again) != first
    assert fleet.finish("w1", first) == [Refuse("w1", first, Why.NOT_HELD.sentence())]


def test_nobody_answers_for_the_lease_of_another(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.join("w2")
    name = lease(fleet.want("b1", "a"))
    assert fleet.finish("w2", name) == [Refuse("w2", name, Why.NOT_HELD.sentence())]
    assert fleet.renew("w2", name) == [Revoke("w2", name, Why.NOT_HELD.sentence())]
    assert fleet.join("w2", leases=((name, "a", 1.0),)) == [Revoke("w2", name, Why.NOT_HELD.sentence())]
    assert fleet.give_back("w2", name) == []
    assert fleet.finish("w1", name) == [Settle("a", name, "w1", ("b1",))]


def test_a_restarted_scheduler_takes_over_what_runs() -> None:
    fleet = Driver("2")
    fleet.join("w1", slots=2, leases=(("1.7", "a", 30.0),))
    fleet.join("w2")
    fleet.open("b1")
    assert fleet.want("b1", "a", memory=700) == [
        Tell("b1", "a", "started", "w1", "w1 executes it already, for another build")
    ]
    assert leases(fleet.want("b1", "b", memory=700)) == [("b", "w2")], "w1 has 300 left"
    assert fleet.finish("w1", "1.7") == [Settle("a", "1.7", "w1", ("b1",))]


def test_a_restarted_scheduler_ends_what_nobody_asks_for_again() -> None:
    fleet = Driver("2")
    fleet.join("w1", leases=(("1.7", "a", 30.0),))
    assert fleet.after(ORPHAN_SECONDS - 1, "w1") == []
    assert fleet.after(1, "w1") == [Revoke("w1", "1.7", "no build wants it any more")]


def test_an_adopted_result_counts_though_its_build_is_not_back() -> None:
    fleet = Driver("2")
    fleet.join("w1", leases=(("1.7", "a", 30.0),))
    assert fleet.finish("w1", "1.7") == [Settle("a", "1.7", "w1", ())]


def test_a_worker_may_not_bring_more_leases_than_slots() -> None:
    fleet = Driver("2")
    brought = fleet.join("w1", leases=(("1.7", "a", 30.0), ("1.8", "b", 30.0)))
    assert brought == [Revoke("w1", "1.8", Why.NO_ROOM.sentence())]
