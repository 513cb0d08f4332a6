"""What builds ask of workers, over gRPC: memory, labels, and that they are among those whom the build trusts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import grpc
from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, held, key

K = key(1)


def test_only_workers_of_the_keys_get_an_action(fleet: Scheduled) -> None:
    one, two = fleet.worker("w1", slots=4).joined(), fleet.worker("w2", slots=4).joined()
    build = fleet.build()
    for number in range(3):
        build.execute(key(number), needs={"workers": [two.identity.public]})
        assert two.lease().action.key == key(number)
    assert one.none("lease")


def test_builds_with_other_wishes_do_not_share_an_action_and_those_with_the_same_do(fleet: Scheduled) -> None:
    one = fleet.worker("w1", slots=4, labels={"gpu": "yes"}).joined()
    two = fleet.worker("w2", slots=4).joined()
    open_minded, careful, also = fleet.build("ann"), fleet.build("bob"), fleet.build("bob")
    open_minded.execute(K, needs={"labels": {"gpu": "yes"}})
    first = one.lease()
    careful.execute(K, needs={"workers": [two.identity.public]})
    second = two.lease()
    also.execute(K, needs={"workers": [two.identity.public]})
    assert also.take("started").worker == "w2"
    assert two.none("lease")
    one.done(first)
    assert open_minded.take("done").worker == "w1"
    assert careful.none("done"), "it does not trust w1"
    two.done(second)
    assert {careful.take("done").worker, also.take("done").worker} == {"w2"}
    found = fleet.fleet().Explain(pb.ExplainRequest(action=K[:8]), metadata=[("name", "ann")])
    assert found.key == K
    assert [each.reason for each in found.decisions].count("DONE") == 2


def test_a_cached_result_is_for_those_who_trust_its_worker_and_others_get_one_of_their_own(fleet: Scheduled) -> None:
    one, two = fleet.worker("w1").joined(), fleet.worker("w2").joined()
    first = fleet.build()
    first.execute(K, needs={"workers": [one.identity.public]})
    one.done(one.lease())
    assert first.take("done").worker == "w1"
    fleet.build("bob").execute(K, needs={"workers": [one.identity.public, two.identity.public]})
    assert one.none("lease")
    assert two.none("lease")
    careful = fleet.build()
    careful.execute(K, needs={"workers": [two.identity.public]})
    two.done(two.lease())
    assert careful.take("done").worker == "w2"


def test_what_is_cancelled_under_its_key_is_the_action_that_the_build_wants(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=2).joined()
    plain, careful = fleet.build(), fleet.build()
    plain.execute(K)
    kept = worker.lease()
    careful.execute(K, needs={"workers": [worker.identity.public]})
    dropped = worker.take("lease")
    worker.begin(dropped)
    careful.take("started")
    careful.send(cancel=K)
    assert worker.take("revoke").lease == dropped.lease
    worker.done(kept)
    assert plain.take("done").key == K


def test_a_worker_that_comes_back_goes_on_with_what_only_it_may_make(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K, needs={"workers": [worker.identity.public]})
    lease = worker.lease()
    again = fleet.worker(identity=worker.identity, leases=[held(lease)]).joined()
    assert list(again.welcome.lost) == []
    again.done(lease)
    assert build.take("done").worker == "w1"


def test_what_no_worker_has_is_declined_with_what_is_missing(fleet: Scheduled) -> None:
    fleet.worker().joined()
    build = fleet.build()
    fleet.clock.ahead += 60
    for number, needs, reason in (
        (1, {"workers": [b"k" * 32]}, "no worker that the build trusts can take it"),
        (2, {"labels": {"gpu": "a100"}}, "no worker has the labels gpu=a100"),
        (3, {"memory": 8 << 30}, "no worker has 8.6 GB of memory"),
    ):
        build.execute(key(number), needs=needs)
        assert build.take("declined", key=key(number)).reason == reason


def test_what_is_no_key_of_a_worker_is_refused(fleet: Scheduled) -> None:
    build = fleet.build()
    build.execute(K, needs={"workers": [b"short"]})
    assert build.failure()[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_build_that_found_no_worker_hears_of_the_first_that_takes_actions(fleet: Scheduled) -> None:
    build, elsewhere = fleet.build(), fleet.build(namespace="other")
    assert (build.take("opened").workers, elsewhere.take("opened").workers) == (0, 0)
    fleet.worker("idle", cordoned=True).joined()
    assert build.none("opened")
    fleet.fleet().Cordon(pb.CordonRequest(worker="idle", off=True), metadata=[("name", "root")])
    assert (build.take("opened").workers, elsewhere.take("opened").workers) == (1, 1)
    fleet.worker("second").joined()
    assert build.none("opened"), "it knows enough"


def test_a_build_hears_of_no_worker_of_other_namespaces(fleet: Scheduled) -> None:
    build, elsewhere = fleet.build(), fleet.build(namespace="other")
    build.take("opened")
    elsewhere.take("opened")
    fleet.worker("limited", "limited").joined()
    assert elsewhere.take("opened").workers == 1
    assert build.none("opened")


@pytest.mark.parametrize("first", ["worker", "build"])
def test_after_a_restart_what_a_trusted_worker_executes_goes_on(fleet: Scheduled, first: str) -> None:
    worker = fleet.worker().joined()
    needs = {"workers": [worker.identity.public]}
    fleet.build(name="one").execute(K, needs=needs)
    lease = worker.lease()
    fleet.again()
    if first == "worker":
        again = fleet.worker(identity=worker.identity, leases=[held(lease)]).joined()
    build = fleet.build(name="one")
    build.execute(K, needs=needs)
    if first == "build":
        build.take("queued")
        again = fleet.worker(identity=worker.identity, leases=[held(lease)]).joined()
    build.take("opened")
    other = fleet.build(name="one")  # its stream broke, too
    other.execute(K, needs=needs)
    assert other.take("started").lease == lease.lease
    again.done(lease)
    assert other.take("done").worker == "w1"
    assert again.none("lease")


def test_after_a_restart_what_another_worker_executes_is_not_for_a_build_that_does_not_trust_it(fleet: Scheduled) -> None:
    one = fleet.worker("w1").joined()
    fleet.build().execute(K)
    lease = one.lease()
    fleet.again()
    fleet.worker("w1", identity=one.identity, leases=[held(lease)]).joined()
    two = fleet.worker("w2").joined()
    fleet.build().execute(K, needs={"workers": [two.identity.public]})
    assert two.lease().action.key == K
