"""Leases that a scheduler does not remember: it knows them by their proofs, and by nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, held, key

from cache.lmdb_store import LmdbStore
from worker.fleet.lease_proofs import LeaseProofs

if TYPE_CHECKING:
    from collections.abc import Callable

    from scheduled import Worker

K = key(1)


def given(fleet: Scheduled, worker: Worker) -> pb.SchedulerMessage.Lease:
    """A lease of K that a worker has as the server starts anew."""
    build = fleet.build()
    build.execute(K)
    lease = worker.lease()
    fleet.again()
    return lease


def refused(worker: Worker, lease: pb.SchedulerMessage.Lease) -> bool:
    """Whether nobody gets what a worker says by a lease that is none."""
    assert list(worker.joined().welcome.lost) == [lease.lease]
    worker.done(lease)
    return not worker.take("settled").taken


def test_nobody_writes_a_result_by_a_lease_that_was_never_given(fleet: Scheduled) -> None:
    made_up = pb.SchedulerMessage.Lease(lease="made-up", action=pb.ActionOrder(key=K))
    liar = fleet.worker("liar", leases=[held(made_up)])
    assert refused(liar, made_up)
    liar.close()
    fleet.wait_for(lambda: "liar" not in {each.name for each in fleet.state().workers if each.state == "ready"})
    victim, honest = fleet.build(), fleet.worker("honest").joined()
    victim.execute(K)
    honest.done(honest.lease())
    assert victim.take("done").worker == "honest"


def test_a_build_that_waits_is_not_served_by_a_lease_that_was_never_given(fleet: Scheduled) -> None:
    victim = fleet.build()
    victim.execute(K)
    victim.take("queued")
    made_up = pb.SchedulerMessage.Lease(lease="made-up", action=pb.ActionOrder(key=K), proof=b"p" * 32)
    liar = fleet.worker("liar", leases=[held(made_up)])
    assert refused(liar, made_up)
    assert liar.take("lease").lease != "made-up", "and gets it as everybody does"


def test_who_has_its_proof_goes_on_with_it_after_a_restart(fleet: Scheduled) -> None:
    lease = given(fleet, fleet.worker().joined())
    worker = fleet.worker(leases=[held(lease)]).joined()
    assert not worker.welcome.lost
    build = fleet.build()
    build.execute(K)
    worker.done(lease)
    assert build.take("done").worker == "w1"


def test_the_proof_of_another_worker_is_none(fleet: Scheduled) -> None:
    lease = given(fleet, fleet.worker().joined())
    assert refused(fleet.worker("thief", leases=[held(lease)]), lease)
    identity = fleet.worker("thief2").joined().identity
    assert refused(fleet.worker("w1", identity=identity, leases=[held(lease)]), lease), "the name alone does not do"


def _changed(**fields: str | bytes) -> Callable[[pb.SchedulerMessage.Lease], None]:
    def change(lease: pb.SchedulerMessage.Lease) -> None:
        for name, value in fields.items():
            target = lease.action if name == "key" else lease
            setattr(target, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _changed(key=key(2)), _changed(instance_name="other"), _changed(lease="another"), _changed(proof=b""),
        _changed(proof=b"\0" * 32), _changed(proof=b"p" * 5_000),
    ],
    ids=["key", "namespace", "lease", "none", "zeros", "long"],
)  # fmt: skip
def test_a_proof_is_of_one_lease_of_one_action_in_one_namespace(
    fleet: Scheduled, change: Callable[[pb.SchedulerMessage.Lease], None]
) -> None:
    lease = given(fleet, fleet.worker().joined())
    change(lease)
    assert refused(fleet.worker(leases=[held(lease)]), lease)


def test_what_ended_before_is_not_adopted_within_one_start(fleet: Scheduled) -> None:
    worker, build = fleet.worker().joined(), fleet.build()
    build.execute(K)
    lease = worker.lease()
    build.send(cancel=K)
    worker.take("revoke")
    assert refused(fleet.worker(leases=[held(lease)]), lease)


def test_its_parts_cannot_be_moved_from_one_to_another() -> None:
    proofs = LeaseProofs(b"k" * 32)
    proof = proofs.of("a", "b", K, b"w")
    assert proofs.holds(proof, "a", "b", K, b"w")
    assert not proofs.holds(proof, "ab", "", K, b"w")
    assert not proofs.holds(proof, 'a","b', "", K, b"w")
    assert not LeaseProofs(b"x" * 32).holds(proof, "a", "b", K, b"w")


def test_the_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path / "store"))
    try:
        proof = LeaseProofs.kept_in(store).of("l", "", K, b"w")
        assert LeaseProofs.kept_in(store).holds(proof, "l", "", K, b"w")
        assert not LeaseProofs(b"").holds(proof, "l", "", K, b"w")
        files = list((tmp_path / "store").rglob("*.mdb"))
        assert files
        assert not any(path.stat().st_mode & 0o077 for path in files)
    finally:
        store.close()


def test_it_comes_with_each_lease(fleet: Scheduled) -> None:
    worker, build = fleet.worker(slots=2).joined(), fleet.build()
    for number in range(2):
        build.execute(key(number))
    proofs = {worker.take("lease").proof for _ in range(2)}
    assert {len(proof) for proof in proofs} == {32}
    assert len(proofs) == 2
