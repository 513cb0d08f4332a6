"""The scheduler's rules, each by events in and commands out: who is next, where it runs, and what each hears."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from driver import AMD, MB, Driver, lease, leases, told, with_two_builds

from worker.fleet.commands import GiveUp, Lease, Refuse, Revoke, Settle, Tell
from worker.fleet.decisions import Why
from worker.fleet.limits import LEASE_SECONDS, NOBODY_SECONDS, ORPHAN_SECONDS


@pytest.fixture
def fleet() -> Driver:
    return with_two_builds()


def test_an_action_is_given_and_its_result_reaches_the_build(fleet: Driver) -> None:
    fleet.join("w1")
    given = fleet.want("b1", "a")
    assert given == [
        Lease("w1", lease(given), "a", fleet.now + LEASE_SECONDS),
        Tell("b1", "a", "started", "w1", "w1 is free, and there is nothing to move"),
    ]
    fleet.now += 3
    assert fleet.finish("w1", lease(given)) == [Settle("a", lease(given), "w1", ("b1",))]
    assert fleet.text("a") == "w1 made it in 3.0 s"


def test_a_command_that_fails_is_a_result_too(fleet: Driver) -> None:
    fleet.join("w1")
    name = lease(fleet.want("b1", "a"))
    assert fleet.finish("w1", name, ok=False) == [Settle("a", name, "w1", ("b1",))]
    assert fleet.whys("a")[-1] is Why.FAILED
    assert fleet.scheduler.snapshot().workers[0].failed == 1


def test_equal_actions_run_once_and_all_who_want_them_hear(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.join("w2")
    name = lease(fleet.want("b1", "a"))
    assert fleet.want("b2", "a") == [Tell("b2", "a", "started", "w1", "w1 executes it already, for another build")]
    assert fleet.finish("w1", name) == [Settle("a", name, "w1", ("b1", "b2"))]


def test_a_client_that_goes_cancels_only_what_nobody_else_wants(fleet: Driver) -> None:
    fleet.join("w1", slots=3)
    shared, own = lease(fleet.want("b1", "shared")), lease(fleet.want("b1", "own"))
    fleet.want("b2", "shared")
    assert fleet.close("b1") == [Revoke("w1", own, "no build wants it any more")]
    assert fleet.finish("w1", own) == [Refuse("w1", own, Why.NOT_HELD.sentence())]
    assert fleet.finish("w1", shared) == [Settle("shared", shared, "w1", ("b2",))]


def test_what_waits_and_is_not_wanted_any_more_never_starts(fleet: Driver) -> None:
    fleet.join("w1")
    first = lease(fleet.want("b1", "a"))
    assert told(fleet.want("b1", "b")) == [("b1", "queued", "")]
    fleet.unwant("b1", "b")
    assert leases(fleet.finish("w1", first)) == []


def test_the_longest_path_of_a_build_goes_first(fleet: Driver) -> None:
    fleet.join("w1")
    name = lease(fleet.want("b1", "a"))
    fleet.want("b1", "short", critical=5.0)
    fleet.want("b1", "long", critical=50.0)
    assert leases(fleet.finish("w1", name)) == [("long", "w1")]
    assert Why.LONGEST_PATH in fleet.whys("long")


def test_a_second_build_lengthens_the_path(fleet: Driver) -> None:
    fleet.join("w1")
    name = lease(fleet.want("b1", "a"))
    fleet.want("b1", "middle", critical=20.0)
    fleet.want("b1", "both", critical=5.0)
    fleet.want("b2", "both", critical=50.0)
    assert leases(fleet.finish("w1", name)) == [("both", "w1")]


def test_who_used_least_goes_first_though_its_path_is_shorter(fleet: Driver) -> None:
    fleet.join("w1")
    for number in range(4):
        fleet.want("b1", f"a{number}", critical=1000.0, seconds=100.0)
    fleet.after(100, "w1")
    fleet.want("b2", "small", critical=1.0, seconds=1.0)
    (running,) = fleet.scheduler.snapshot().running
    assert leases(fleet.finish("w1", running.lease)) == [("small", "w1")]
    assert "ben has used the least of all who waited lately" in [each.text for each in fleet.scheduler.explain("small")]


def test_of_a_persons_builds_the_one_goes_first_that_used_least(fleet: Driver) -> None:
    fleet.open("b3", "ann")
    fleet.join("w1")
    first = lease(fleet.want("b1", "a0", critical=1000.0, seconds=100.0))
    fleet.want("b1", "a1", critical=1000.0, seconds=100.0)
    fleet.want("b3", "small", seconds=1.0)
    fleet.after(100, "w1")
    assert leases(fleet.finish("w1", first)) == [("small", "w1")]
    assert Why.BUILD_SHARE in fleet.whys("small")


def test_use_fades(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.finish("w1", lease(fleet.want("b1", "a", seconds=200.0)))
    fleet.now += 3600
    hold = lease(fleet.want("b2", "hold", seconds=0.0))
    fleet.want("b1", "x", critical=9.0)
    fleet.want("b2", "y", critical=1.0)
    assert leases(fleet.finish("w1", hold)) == [("x", "w1")], "an hour ago does not count: the longest path does"


def test_it_runs_where_most_of_its_layers_are(fleet: Driver) -> None:
    fleet.join("w1", layers=("small",))
    fleet.join("w2", layers=("large",))
    fleet.join("w3")
    given = fleet.want("b1", "a", layers=(("small", 10 * MB), ("large", 20 * MB)))
    assert leases(given) == [("a", "w2")]
    assert fleet.text("a") == "w2 has 20.0 MB of its 30.0 MB of layers, and no free worker has more"


def test_a_result_stays_where_it_was_made(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.join("w2")
    first = fleet.want("b1", "a")
    ((_, worker),) = leases(first)
    other = "w2" if worker == "w1" else "w1"
    fleet.finish(worker, lease(first), layers=("made",))
    assert leases(fleet.want("b1", "b", layers=(("made", MB),))) == [("b", worker)]
    assert leases(fleet.want("b1", "c", layers=(("made", MB),))) == [("c", other)], "a megabyte is not worth waiting for"


def test_a_cache_mount_draws_to_the_worker_that_has_it(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.join("w2", caches=("apt",))
    assert leases(fleet.want("b1", "a", caches=("apt",))) == [("a", "w2")]


def test_it_waits_for_the_layers_when_moving_them_takes_longer(fleet: Driver) -> None:
    fleet.join("w1", layers=("huge",))
    fleet.join("w2")
    name = lease(fleet.want("b1", "first", layers=(("huge", 3000 * MB),), seconds=2.0))
    assert told(fleet.want("b1", "second", layers=(("huge", 3000 * MB),), seconds=2.0)) == [("b1", "queued", "")]
    assert fleet.text("second") == "waits for w1: to move 3.0 GB takes longer than the 2.0 s until it is free"
    fleet.now += 2
    assert leases(fleet.finish("w1", name)) == [("second", "w1")]
    assert Why.WAITED in fleet.whys("second")


def test_it_waits_no_longer_than_moving_takes(fleet: Driver) -> None:
    fleet.join("w1", layers=("huge",))
    fleet.join("w2")
    fleet.want("b1", "first", layers=(("huge", 500 * MB),), seconds=2.0)
    assert leases(fleet.want("b1", "second", layers=(("huge", 500 * MB),), seconds=2.0)) == []
    assert leases(fleet.after(4.5, "w1", "w2")) == []
    assert leases(fleet.after(1.0, "w1", "w2")) == [("second", "w2")]


def test_it_does_not_wait_for_a_worker_that_is_busy_for_long(fleet: Driver) -> None:
    fleet.join("w1", layers=("huge",))
    fleet.join("w2")
    fleet.want("b1", "first", layers=(("huge", 500 * MB),), seconds=60.0)
    assert leases(fleet.want("b1", "second", layers=(("huge", 500 * MB),))) == [("second", "w2")]


def test_whoever_waits_for_a_worker_looks_again_when_it_goes(fleet: Driver) -> None:
    fleet.join("w1", layers=("huge",))
    fleet.join("w2")
    fleet.want("b1", "first", layers=(("huge", 3000 * MB),), seconds=2.0)
    assert leases(fleet.want("b1", "second", layers=(("huge", 3000 * MB),))) == []
    assert leases(fleet.drains("w1")) == [("second", "w2")]


def test_slots_and_memory_are_hard_limits(fleet: Driver) -> None:
    fleet.join("w1", slots=2, memory=1000)
    first = lease(fleet.want("b1", "a", memory=600))
    assert leases(fleet.want("b1", "b", memory=600)) == []
    assert leases(fleet.want("b1", "c", memory=400)) == [("c", "w1")]
    assert leases(fleet.want("b1", "d")) == []
    assert leases(fleet.finish("w1", first)) in ([("b", "w1")], [("d", "w1")])


def test_platform_and_labels_are_hard_limits(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.join("w2", platforms=("linux/arm64",))
    fleet.join("w3", labels={"gpu": "yes", "zone": "a"})
    assert leases(fleet.want("b1", "arm", platform="linux/arm64")) == [("arm", "w2")]
    assert leases(fleet.want("b1", "gpu", labels={"gpu": "yes"})) == [("gpu", "w3")]
    assert leases(fleet.want("b1", "gpu2", labels={"gpu": "yes"})) == [], "w1 is free, and has none"
    assert leases(fleet.want("b1", "any", platform="")) == [("any", "w1")]


@pytest.mark.parametrize(
    ("needs", "sentence"),
    [
        ({"platform": "linux/s390x"}, "no worker is for linux/s390x"),
        ({"memory": 5 * MB}, "no worker has 5.0 MB of memory"),
        ({"labels": {"gpu": "yes", "arch": "x"}}, "no worker has the labels arch=x, gpu=yes"),
        ({"platform": "linux/arm64", "memory": 900}, "no worker has its platform, its memory and its labels together"),
    ],
)
def test_what_no_worker_can_take_is_given_up_at_once(fleet: Driver, needs: dict[str, object], sentence: str) -> None:
    fleet.join("w1")
    fleet.join("w2", memory=10, platforms=("linux/arm64",))
    fleet.after(NOBODY_SECONDS)
    assert fleet.want("b1", "a", **needs) == [GiveUp(("b1",), "a", sentence)]


def test_a_scheduler_that_just_started_waits_for_its_workers(fleet: Driver) -> None:
    assert told(fleet.want("b1", "a")) == [("b1", "queued", "")]
    fleet.want("b2", "b", platform="linux/arm64")
    assert fleet.text("a") == "no worker has joined so far that may take it"
    fleet.after(NOBODY_SECONDS / 2)
    assert leases(fleet.join("w1")) == [("a", "w1")]
    assert fleet.after(NOBODY_SECONDS, "w1") == [GiveUp(("b2",), "b", "no worker is for linux/arm64")]


def test_without_any_worker_clients_hear_it_at_once(fleet: Driver) -> None:
    fleet.after(NOBODY_SECONDS)
    assert fleet.want("b1", "a") == [GiveUp(("b1",), "a", "there is no worker")]


def test_workers_that_are_away_for_a_moment_are_waited_for(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.after(100, "w1")
    fleet.left("w1")
    assert told(fleet.want("b1", "a")) == [("b1", "queued", "")]
    assert fleet.text("a") == "the workers that may take it are away or silent"
    fleet.now += 1
    assert leases(fleet.join("w1")) == [("a", "w1")]
    fleet.left("w1")
    fleet.want("b1", "b")
    gone = fleet.after(LEASE_SECONDS + NOBODY_SECONDS + 5)
    assert {each.action for each in gone if isinstance(each, GiveUp)} == {"a", "b"}


def test_a_worker_that_drains_finishes_and_takes_nothing_new(fleet: Driver) -> None:
    fleet.join("w1", slots=2)
    fleet.join("w2", platforms=("linux/arm64",))
    fleet.after(NOBODY_SECONDS, "w1", "w2")
    name = lease(fleet.want("b1", "a"))
    fleet.drains("w1")
    declined = fleet.want("b1", "b")
    assert declined == [GiveUp(("b1",), "b", "the workers that may take it are draining")]
    assert fleet.finish("w1", name) == [Settle("a", name, "w1", ("b1",))]
    fleet.resumes("w1")
    assert leases(fleet.want("b1", "c")) == [("c", "w1")]


def test_a_build_that_is_not_open_makes_its_actions_itself(fleet: Driver) -> None:
    fleet.join("w1")
    assert fleet.want("b9", "a") == [GiveUp(("b9",), "a", "its build is not open, or too many are")]


def test_what_is_asked_twice_is_told_twice_and_runs_once(fleet: Driver) -> None:
    fleet.join("w1")
    name = lease(fleet.want("b1", "a"))
    assert told(fleet.want("b1", "a")) == [("b1", "started", "w1")]
    assert fleet.finish("w1", name) == [Settle("a", name, "w1", ("b1",))]


def test_events_about_nobody_change_nothing(fleet: Driver) -> None:
    fleet.join("w1")
    before = fleet.scheduler.snapshot()
    for commands in (
        fleet.left("w9"), fleet.drains("w9"), fleet.resumes("w9"), fleet.renew("w9", "1.1"), fleet.finish("w9", "1.1"),
        fleet.give_back("w9", "1.1"), fleet.close("b9"), fleet.unwant("b1", "a"), fleet.unwant("b9", "a"),
    ):  # fmt: skip
        assert commands == []
    assert fleet.scheduler.snapshot() == before


def test_the_snapshot_shows_what_people_ask(fleet: Driver) -> None:
    fleet.join("w1", slots=1, layers=("x",), labels={"zone": "a"})
    fleet.want("b1", "a", layers=(("x", 3 * MB), ("y", MB)), seconds=4.0)
    fleet.want("b2", "b")
    fleet.now += 2
    fleet.renew("w1")
    seen = fleet.scheduler.snapshot()
    (worker,), (running,), (queued,) = seen.workers, seen.running, seen.queued
    assert (worker.name, worker.busy, worker.slots, worker.state, worker.warm) == ("w1", 1, 1, "ready", 0.75)
    assert (worker.platforms, worker.labels) == ((AMD,), {"zone": "a"})
    assert (running.action, running.worker, running.seconds, running.expected, running.builds) == ("a", "w1", 2.0, 4.0, ("b1",))
    assert (queued.action, queued.expected, queued.reason) == ("b", None, "every worker that may take it is busy")
    assert queued.seconds == 2.0, "it waits so long"
    assert seen.queue_length == 1
    assert [(each.build, each.person, each.running, each.queued) for each in seen.builds] == [("b1", "ann", 1, 0), ("b2", "ben", 0, 1)]


def test_decisions_are_found_by_the_beginning_of_the_key(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.want("b1", "abc1")
    fleet.want("b1", "abc2")
    assert fleet.scheduler.beginning_with("abc") == ("abc1", "abc2")
    assert fleet.scheduler.explain("abc") == ()


def test_it_is_explained_why_leases_were_taken_back(fleet: Driver) -> None:
    fleet.join("w1")
    fleet.join("w2")
    fleet.want("b1", "a", seconds=1.0)
    fleet.finish("w2", lease(fleet.after(12, "w1", "w2")))
    assert fleet.scheduler.explain("a")[-1][1:] == (Why.FIRST, "w1", "w2 was first")


def test_it_is_explained_why_a_lease_that_expired_did_not_come_back(fleet: Driver) -> None:
    fleet.join("w1", slots=2)
    first = lease(fleet.want("b1", "a", memory=600))
    fleet.want("b1", "b", memory=600, critical=9.0)
    fleet.after(LEASE_SECONDS)
    assert leases(fleet.renew("w1")) == [("b", "w1")]
    fleet.renew("w1", first)
    assert fleet.scheduler.explain("a")[-1][1:] == (Why.NOT_HELD, "w1", Why.NOT_HELD.sentence())
    (queued,) = fleet.scheduler.snapshot().queued
    assert queued.reason == "the lease of w1 expired", "that is why it waits"


def test_it_is_explained_why_a_restarted_scheduler_took_a_lease_back() -> None:
    fleet = Driver("2")
    fleet.join("w1", leases=(("1.7", "a", 30.0), ("1.8", "b", 30.0)))
    assert fleet.whys("b") == [Why.NO_ROOM]
    fleet.after(ORPHAN_SECONDS, "w1")
    assert fleet.whys("a") == [Why.ADOPTED, Why.UNWANTED]


def test_what_is_declined_is_explained(fleet: Driver) -> None:
    fleet.want("nobody's", "a")
    assert fleet.text("a") == "its build is not open, or too many are"


def test_every_reason_is_one_readable_sentence() -> None:
    sentences = [why.value for why in Why]
    assert len(set(sentences)) == len(list(Why.__members__)), "two equal ones would be one"
    details = {"worker": "w", "person": "p", "seconds": 1.0, "held": "1", "size": "2", "first": "f", "text": "t"}
    details |= {"platform": "x", "memory": "m", "labels": "l", "attempts": 3}
    assert all(0 < len(why.sentence(**details)) < 120 and "{" not in why.sentence(**details) for why in Why)


def test_an_action_goes_only_to_workers_that_its_build_trusts(fleet: Driver) -> None:
    fleet.join("w1", key=b"one")
    fleet.join("w2", key=b"two")
    first = fleet.want("b1", "a", workers=frozenset({b"two", b"three"}))
    assert leases(first) == [("a", "w2")]
    assert told(fleet.want("b1", "b", workers=frozenset({b"two"}))) == [("b1", "queued", "")], "w1 is free"
    assert fleet.text("b") == "every worker that its build trusts and that may take it is busy"
    assert leases(fleet.finish("w2", lease(first))) == [("b", "w2")]


def test_without_a_worker_that_the_build_trusts_it_is_given_up_and_says_so(fleet: Driver) -> None:
    fleet.join("w1", key=b"one")
    fleet.after(NOBODY_SECONDS + 1, "w1")
    (given_up,) = [each for each in fleet.want("b1", "a", workers=frozenset({b"two"})) if isinstance(each, GiveUp)]
    assert given_up.why == "no worker that the build trusts can take it"
    assert leases(fleet.want("b1", "b", workers=frozenset({b"one"}))) == [("b", "w1")]


def test_a_late_action_gets_no_second_worker_that_its_build_does_not_trust(fleet: Driver) -> None:
    fleet.join("w1", key=b"one")
    fleet.join("w2", key=b"two")
    fleet.want("b1", "a", seconds=1.0, workers=frozenset({b"one"}))
    assert leases(fleet.after(60, "w1", "w2")) == []
