"""Who may do what with the scheduler, and what it does not believe."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import grpc
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import remote_execution_pb2 as re_pb
from buildgraph.v1 import remote_execution_pb2_grpc
from scheduled import SECONDS, Scheduled, key

from worker.fleet.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

K = key(1)
DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("who", "namespace", "code"),
    [("reader", "", DENIED), ("blind", "", DENIED), ("w", "", DENIED), ("limited", "", DENIED), ("nobody", "", DENIED), ("?", "", UNKNOWN), ("ann", "a b", INVALID)],
)
def test_a_build_needs_to_execute_read_and_write_in_its_namespace(fleet: Scheduled, who: str, namespace: str, code: Any) -> None:
    assert fleet.build(who, namespace=namespace).failure()[0] is code


@pytest.mark.parametrize(("who", "code"), [("reader", DENIED), ("blind", DENIED), ("nobody", DENIED), ("?", UNKNOWN)])
def test_a_worker_needs_to_execute_and_to_read_somewhere(fleet: Scheduled, who: str, code: Any) -> None:
    assert fleet.worker(who=who).failure()[0] is code
    assert not fleet.state().workers


def test_a_worker_gets_actions_only_of_namespaces_that_its_token_allows(fleet: Scheduled) -> None:
    limited = fleet.worker("limited", who="limited").joined()
    here = fleet.build()
    assert here.take("opened").workers == 0
    here.execute(K)
    there = fleet.build(namespace="other")
    assert there.take("opened").workers == 1
    there.execute(K)
    lease = limited.lease()
    assert lease.instance_name == "other"
    limited.done(lease)
    assert there.take("done")
    assert limited.none("lease")
    assert here.take("queued")
    free = fleet.worker("free").joined()
    assert free.lease().instance_name == ""


def test_a_worker_that_cannot_say_a_namespace_by_a_label(fleet: Scheduled) -> None:
    code, text = fleet.worker(who="limited", labels={"namespace:(default)": "execute"}).failure()
    assert code is INVALID
    assert "namespace:" in text


def test_whose_token_was_taken_back_is_ended(fleet: Scheduled) -> None:
    worker, build = fleet.worker().joined(), fleet.build()
    build.take("opened")
    del fleet.guard.grants["w"]
    fleet.guard.grants["ann"] = {"other": ("execute", "read", "write")}
    fleet.clock.ahead += 15
    assert worker.failure()[0] is UNKNOWN
    assert build.failure()[0] is DENIED


def test_a_hello_that_is_not_signed_by_its_key_is_refused(fleet: Scheduled) -> None:
    thief = Identity.load(str(fleet.root / "thief.key"))
    code, text = fleet.worker(signature=thief.sign(("buildgraph.v1 hello", "w1", "x"))).failure()
    assert code is DENIED
    assert "signed" in text


def test_another_key_does_not_get_the_name_of_a_worker_that_is_there(fleet: Scheduled) -> None:
    first = fleet.worker().joined()
    thief = Identity.load(str(fleet.root / "thief.key"))
    code, text = fleet.worker(identity=thief).failure()
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert "ed25519:" in text
    build = fleet.build()
    build.execute(K)
    assert first.lease()
    first.call.cancel()
    assert first.ended.wait(60)
    assert fleet.worker(identity=thief).failure()[0] is grpc.StatusCode.ALREADY_EXISTS
    fleet.clock.ahead += 100  # it does not come back
    fleet.wait_for(lambda: not fleet.state().workers)
    fleet.worker(identity=thief).joined()


def test_the_same_worker_that_starts_again_takes_its_own_place(fleet: Scheduled) -> None:
    first = fleet.worker().joined()
    fleet.worker().joined()
    assert first.failure()[0] is grpc.StatusCode.ABORTED
    assert len(fleet.state().workers) == 1


def test_a_result_for_a_lease_of_somebody_else_is_refused(fleet: Scheduled) -> None:
    owner = fleet.worker("owner").joined()
    build = fleet.build()
    build.execute(K)
    lease = owner.lease()
    liar = fleet.worker("liar").joined()
    liar.done(lease)
    refused = liar.take("settled")
    assert not refused.taken
    assert "not this worker's" in refused.reason
    assert build.none("done")
    assert fleet.said("result refused")[0]["worker"] == "liar"
    owner.done(lease)
    assert build.take("done").worker == "owner"


def _other_key(worker: Any, lease: Any) -> dict[str, Any]:
    return {"key": key(9)}


def _other_namespace(worker: Any, lease: Any) -> dict[str, Any]:
    return {"namespace": "other"}


@pytest.mark.parametrize("said", [_other_key, _other_namespace])
def test_a_lease_is_for_one_action_in_one_namespace(fleet: Scheduled, said: Callable[[Any, Any], dict[str, Any]]) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    lease = worker.lease()
    worker.done(lease, **said(worker, lease))
    assert not worker.take("settled").taken
    worker.done(lease)
    assert build.take("done")


def _unsigned(worker: Any, lease: Any) -> pb.Outcome:
    outcome = worker.outcome(lease)
    outcome.signature = b"\0" * 64
    return outcome


def _changed(worker: Any, lease: Any) -> pb.Outcome:
    outcome = worker.outcome(lease)
    outcome.result.made_by = "somebody else"
    return outcome


def _of_another_key(worker: Any, lease: Any) -> pb.Outcome:
    outcome = worker.outcome(lease)
    outcome.worker_key = b"k" * 32
    return outcome


def _without_blobs(worker: Any, lease: Any) -> pb.Outcome:
    return worker.outcome(lease, worker.result(stored=False))


def _without_log_of_a_failure(worker: Any, lease: Any) -> pb.Outcome:
    return worker.outcome(lease, failure=pb.Failure(kind="command", exit_status=1, log=f"{key(77)}/5"))


def _of_a_strange_kind(worker: Any, lease: Any) -> pb.Outcome:
    return worker.outcome(lease, failure=pb.Failure(kind="mood"))


def _empty(worker: Any, lease: Any) -> pb.Outcome:
    return pb.Outcome(worker_key=worker.identity.public)


LIES = [_unsigned, _changed, _of_another_key, _without_blobs, _without_log_of_a_failure, _of_a_strange_kind, _empty]


@pytest.mark.parametrize("lie", LIES)
def test_an_outcome_that_cannot_be_believed_is_as_good_as_none(fleet: Scheduled, lie: Callable[[Any, Any], pb.Outcome]) -> None:
    liar = fleet.worker("liar").joined()
    build = fleet.build()
    build.execute(K)
    lease = liar.lease()
    honest = fleet.worker("honest").joined()
    liar.done(lease, lie(liar, lease))
    settled = liar.take("settled")
    assert not settled.taken
    assert settled.reason
    assert build.take("queued", again=True)
    honest.done(honest.lease())
    assert build.take("done").worker == "honest"
    assert fleet.said("result refused")


def test_a_lease_that_begins_with_a_wrong_signature_is_taken_away(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    lease = worker.take("lease")
    worker.begin(lease, signature=b"\0" * 64)
    assert worker.take("revoke").lease == lease.lease
    assert build.none("started")


def test_workers_store_blobs_and_no_results_under_names_of_their_own(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    digest = worker.put(b"a blob")
    actions = remote_execution_pb2_grpc.ActionCacheStub(fleet.channel())
    result = re_pb.ActionResult(stdout_digest=re_pb.Digest(hash=digest.hash, size_bytes=digest.size))
    request = re_pb.UpdateActionResultRequest(
        action_digest=re_pb.Digest(hash=K, size_bytes=1), action_result=result, digest_function=re_pb.DigestFunction.BLAKE3
    )
    with pytest.raises(grpc.RpcError) as error:
        actions.UpdateActionResult(request, metadata=[("name", "w")], timeout=SECONDS)
    assert error.value.code() is DENIED
    cas = remote_execution_pb2_grpc.ContentAddressableStorageStub(fleet.channel())
    with pytest.raises(grpc.RpcError) as error:
        cas.BatchUpdateBlobs(re_pb.BatchUpdateBlobsRequest(), metadata=[("name", "reader")], timeout=SECONDS)
    assert error.value.code() is DENIED


# what goes from one end to the other, sealed


def test_sealed_messages_go_between_the_first_build_that_has_secrets_and_the_worker_alone(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    busy = fleet.build()
    busy.execute(key(5))
    first_lease = worker.lease()
    plain, first, second = fleet.build("bob"), fleet.build("ann"), fleet.build("ann")
    plain.execute(K)
    plain.take("queued")
    for build in (first, second):
        build.execute(K, secrets=["token"])
        build.take("queued")
    worker.done(first_lease)
    lease = worker.lease()
    assert list(lease.action.secrets) == ["token"]
    for build in (plain, first, second):
        build.take("started")
    for build, data in ((plain, b"p"), (second, b"2"), (first, b"1")):
        build.send(sealed=pb.Sealed(lease=lease.lease, channel="secrets", data=data))
        time.sleep(0.1)
    assert worker.take("sealed").data == b"1"
    assert worker.none("sealed")
    worker.send(sealed=pb.Sealed(lease=lease.lease, channel="ssh:a:1", data=b"ask"))
    assert first.take("sealed").data == b"ask"
    assert second.none("sealed")
    assert plain.none("sealed")


def test_sealed_messages_for_a_lease_of_somebody_else_go_nowhere(fleet: Scheduled) -> None:
    worker, other = fleet.worker("w1").joined(), fleet.worker("w2").joined()
    build, stranger = fleet.build(), fleet.build("bob")
    build.execute(K, secrets=["token"])
    fleet.wait_for(lambda: bool(fleet.state().running))
    running = fleet.state().running
    holder, bystander = (worker, other) if running[0].worker == "w1" else (other, worker)
    name = holder.lease().lease
    build.take("started")
    stranger.take("opened")
    stranger.send(sealed=pb.Sealed(lease=name, channel="secrets", data=b"evil"))
    bystander.send(sealed=pb.Sealed(lease=name, channel="secrets", data=b"evil"))
    assert holder.none("sealed")
    assert build.none("sealed")


# who may look


def test_those_who_look_see_only_what_they_may_read(fleet: Scheduled) -> None:
    worker = fleet.worker(slots=2).joined()
    here, there = fleet.build(), fleet.build(namespace="other")
    here.execute(K)
    there.execute(key(2))
    worker.lease()
    worker.lease()
    mine = fleet.state("bob")
    assert [each.key for each in mine.running] == [K]
    assert [each.build for each in mine.builds] == [here.name]
    assert mine.workers[0].busy == 2
    assert {each.key for each in fleet.state("ann").running} == {K, key(2)}
    assert mine.running[0].text == f"RUN {K[:4]}"
    assert mine.running[0].builds == [here.name]
    with pytest.raises(grpc.RpcError) as error:
        fleet.state("nobody")
    assert error.value.code() is DENIED


def test_why_is_told_to_those_who_may_look(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    worker.done(worker.lease())
    build.take("done")
    stub = fleet.fleet()
    said = stub.Explain(pb.ExplainRequest(action=K[:10]), metadata=[("name", "reader")])
    assert (said.key, said.text) == (K, f"RUN {K[:4]}")
    assert said.decisions[-1].reason == "DONE"
    assert all(each.text and abs(each.at - time.time()) < 60 for each in said.decisions)
    for who, action, code in (("limited", K, DENIED), ("ann", key(8), grpc.StatusCode.NOT_FOUND), ("ann", "zz", INVALID)):
        with pytest.raises(grpc.RpcError) as error:
            stub.Explain(pb.ExplainRequest(action=action), metadata=[("name", who)])
        assert error.value.code() is code


def test_watching_goes_on_as_things_change(fleet: Scheduled) -> None:
    call = fleet.fleet().Watch(pb.WatchRequest(), metadata=[("name", "ann")], timeout=20)
    assert not next(call).workers
    fleet.worker().joined()
    assert next(call).workers[0].name == "w1"
    call.cancel()


def test_an_admin_cordons_a_worker_and_it_stays_so(fleet: Scheduled) -> None:
    stub = fleet.fleet()
    worker = fleet.worker().joined()
    with pytest.raises(grpc.RpcError) as error:
        stub.Cordon(pb.CordonRequest(worker="w1"), metadata=[("name", "ann")])
    assert error.value.code() is DENIED
    with pytest.raises(grpc.RpcError) as error:
        stub.Cordon(pb.CordonRequest(worker="w2"), metadata=[("name", "root")])
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    stub.Cordon(pb.CordonRequest(worker="w1"), metadata=[("name", "root")])
    assert fleet.state().workers[0].state == "cordoned"
    fleet.again()
    worker = fleet.worker().joined()
    build = fleet.build()
    build.execute(K)
    assert worker.none("lease")
    fleet.fleet().Cordon(pb.CordonRequest(worker="w1", off=True), metadata=[("name", "root")])
    assert worker.lease()
