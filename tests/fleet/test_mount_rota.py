"""When a worker publishes which of its cache mounts."""

from __future__ import annotations

from worker.fleet.mount_limits import MOST_CACHES, PUBLISH_SECONDS
from worker.fleet.mount_rota import MountRota, SharedCache
from worker.operation import Mount

A, B = (SharedCache("", name, Mount("cache", "/c", id=name)) for name in "ab")


def test_the_first_time_is_at_once_and_the_next_one_later() -> None:
    rota = MountRota()
    assert (rota.due(0.0), rota.wait(0.0)) == (None, None)
    rota.used(A)
    assert (rota.due(0.0), rota.wait(0.0)) == (A, 0.0)
    assert rota.looked(A, 1.0, "one")
    rota.published(A, "one")
    assert rota.due(2.0) is None
    known = A._replace(known="sha256:1")
    rota.used(known)
    rota.used(B)
    assert (rota.due(2.0), rota.left()) == (B, [known, B])
    rota.looked(B, 2.0, "b")
    assert (rota.due(2.0), rota.wait(2.0)) == (None, PUBLISH_SECONDS - 1.0)
    assert rota.due(1.0 + PUBLISH_SECONDS) == known
    assert not rota.looked(A, 1.0 + PUBLISH_SECONDS, "one"), "it holds what was published"
    assert rota.left() == []


def test_what_could_not_be_published_is_tried_again_after_the_next_step() -> None:
    rota = MountRota()
    rota.used(A)
    assert rota.looked(A, 0.0, "one")
    rota.used(A)
    assert rota.due(PUBLISH_SECONDS) == A
    assert rota.looked(A, PUBLISH_SECONDS, "one"), "nobody has it yet"


def test_what_failed_is_tried_again_later_without_a_step_and_when_the_worker_ends() -> None:
    rota = MountRota()
    rota.used(A)
    rota.failed(A, 0.0)
    assert (rota.due(1.0), rota.left(), rota.due(PUBLISH_SECONDS)) == (None, [A], A)


def test_one_that_a_step_uses_waits_for_the_end_of_a_step() -> None:
    rota = MountRota()
    rota.used(A)
    rota.in_use(A, 0.0)
    assert (rota.due(0.0), rota.wait(0.0), rota.left()) == (None, PUBLISH_SECONDS, [A])
    rota.used(A)
    assert rota.due(0.0) == A


def test_it_is_looked_at_again_though_the_step_that_used_it_failed() -> None:
    rota = MountRota()
    rota.used(A)
    rota.in_use(A, 0.0)
    assert rota.due(PUBLISH_SECONDS) == A


def test_what_the_server_does_not_have_is_published_again_though_nothing_changed() -> None:
    rota = MountRota()
    rota.used(A)
    rota.looked(A, 0.0, "one")
    rota.published(A, "one")
    rota.used(A._replace(known="sha256:1"))
    assert not rota.looked(A, PUBLISH_SECONDS, "one"), "the lease came with it"
    rota.used(A)
    assert rota.looked(A, 2 * PUBLISH_SECONDS, "one"), "it came without"


def test_what_is_not_published_is_said_once() -> None:
    rota = MountRota()
    rota.used(A)
    assert [rota.first_told(A), rota.first_told(A)] == [True, False]


def test_what_was_used_least_lately_is_forgotten() -> None:
    rota = MountRota()
    rota.used(A)
    rota.looked(A, 0.0, "one")
    for number in range(MOST_CACHES):
        rota.used(SharedCache("", str(number), A.mount))
    assert A not in rota.left()
    assert len(rota.left()) == MOST_CACHES
    rota.used(A)
    assert rota.looked(A, 1.0, "one")
