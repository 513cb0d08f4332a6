"""Namespaces are trust domains: nothing leaks from one to another, and what may be read need not be sent twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import team_pb2
from live import Live, NamedGuard, digest, failure, noise, read_name, write_name, write_requests

if TYPE_CHECKING:
    from collections.abc import Callable

GRANTS = {
    "main": {"main": ("read", "write")},
    "pr": {"pr/1": ("read", "write"), "main": ("read",)},
    "fork": {"fork": ("read", "write")},
    "reader": {"fork": ("read",), "main": ("read",)},
}
MAIN, PR, FORK, READER, NOBODY = ((("name", name),) for name in ("main", "pr", "fork", "reader", "nobody"))
DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def guarded(started: Callable[..., Live]) -> Live:
    return started(NamedGuard(GRANTS, quota=10_000_000))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_a_blob_that_one_may_not_read_is_missing_and_must_be_uploaded(guarded: Live, size: int) -> None:
    data = noise(size)
    guarded.write(data, namespace="main", metadata=MAIN)
    assert guarded.missing(digest(data), namespace="fork", metadata=FORK) == [digest(data)]
    name = read_name(data, "fork")
    read = lambda: guarded.stream.Read(bs.ReadRequest(resource_name=name), metadata=FORK)  # noqa: E731
    assert failure(read).code == grpc.StatusCode.NOT_FOUND
    request = pb.BatchReadBlobsRequest(instance_name="fork", digests=[digest(data[:100])])
    assert guarded.cas.BatchReadBlobs(request, metadata=FORK).responses[0].status.code == grpc.StatusCode.NOT_FOUND.value[0]
    action = pb.UpdateActionResultRequest(
        instance_name="fork", action_digest=digest(b"a"), action_result=pb.ActionResult(stdout_digest=digest(data))
    )
    refused = failure(lambda: guarded.actions.UpdateActionResult(action, metadata=FORK))
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION, "a result is no way to get at a blob"
    lie = write_requests(write_name(data, "fork"), data[:-1] + b"?")
    assert failure(lambda: guarded.stream.Write(lie, metadata=FORK)).code == grpc.StatusCode.INVALID_ARGUMENT
    sent: list[int] = []

    def requests() -> object:
        for each in write_requests(write_name(data, "fork"), data, 1 << 20):
            sent.append(len(each.data))
            yield each

    guarded.stream.Write(requests(), metadata=FORK)
    assert sum(sent) == size, "whoever has the bytes sends them: that proves it"
    assert not guarded.missing(digest(data), namespace="fork", metadata=FORK)


def test_chunks_of_a_blob_that_one_may_not_read_are_missing(guarded: Live) -> None:
    data = noise(5_000_000)
    guarded.write(data, namespace="main", metadata=MAIN)
    split = pb.SplitBlobRequest(instance_name="main", blob_digest=digest(data))
    chunks = guarded.cas.SplitBlob(split, metadata=MAIN).chunk_digests
    assert guarded.missing(*chunks, namespace="main", metadata=MAIN) == []
    assert guarded.missing(*chunks, namespace="fork", metadata=FORK) == list(chunks)
    assert guarded.missing(*chunks, namespace="pr/1", metadata=PR) == [], "who may read main need not send its chunks"
    splice = pb.SpliceBlobRequest(instance_name="fork", blob_digest=digest(data), chunk_digests=chunks)
    assert failure(lambda: guarded.cas.SpliceBlob(splice, metadata=FORK)).code == grpc.StatusCode.NOT_FOUND
    split = pb.SplitBlobRequest(instance_name="fork", blob_digest=digest(data))
    assert failure(lambda: guarded.cas.SplitBlob(split, metadata=FORK)).code == grpc.StatusCode.NOT_FOUND


def test_what_one_may_read_elsewhere_is_taken_over(guarded: Live) -> None:
    small, large = noise(100), noise(3_000_000)
    guarded.write(small, namespace="main", metadata=MAIN)
    guarded.write(large, namespace="main", metadata=MAIN)
    assert guarded.missing(digest(small), digest(large), digest(b"new"), namespace="pr/1", metadata=PR) == [digest(b"new")]
    result = pb.ActionResult(output_files=[pb.OutputFile(path="layer.tar", digest=digest(large))])
    update = pb.UpdateActionResultRequest(instance_name="pr/1", action_digest=digest(b"a"), action_result=result)
    guarded.actions.UpdateActionResult(update, metadata=PR)
    get = pb.GetActionResultRequest(instance_name="pr/1", action_digest=digest(b"a"))
    assert guarded.actions.GetActionResult(get, metadata=PR) == result
    with guarded.store.transaction() as view:
        for key, _ in list(view.scan("members", "main\0")):
            view.delete("members", key)
    assert guarded.actions.GetActionResult(get, metadata=PR) == result, "it belongs there by itself"


def test_results_stay_in_their_namespace(guarded: Live) -> None:
    result = pb.ActionResult(exit_code=5)
    update = pb.UpdateActionResultRequest(instance_name="main", action_digest=digest(b"a"), action_result=result)
    guarded.actions.UpdateActionResult(update, metadata=MAIN)
    for metadata, namespace in ((PR, "pr/1"), (FORK, "fork")):
        get = pb.GetActionResultRequest(instance_name=namespace, action_digest=digest(b"a"))
        assert failure(lambda get=get, metadata=metadata: guarded.actions.GetActionResult(get, metadata=metadata)).code == grpc.StatusCode.NOT_FOUND
    get = pb.GetActionResultRequest(instance_name="main", action_digest=digest(b"a"))
    assert guarded.actions.GetActionResult(get, metadata=PR) == result, "a namespace that one may read is asked by its name"


def test_a_reader_changes_nothing(guarded: Live) -> None:
    data = noise(100)
    guarded.write(data, namespace="main", metadata=MAIN)
    assert guarded.missing(digest(data), namespace="fork", metadata=READER) == [digest(data)], "taking over is writing"
    assert guarded.missing(digest(data), namespace="fork", metadata=FORK) == [digest(data)]


CALLS: dict[str, Callable[[Live, str, object], object]] = {
    "Write": lambda live, ns, who: live.stream.Write(write_requests(write_name(b"x", ns), b"x"), metadata=who),
    "QueryWriteStatus": lambda live, ns, who: live.stream.QueryWriteStatus(bs.QueryWriteStatusRequest(resource_name=write_name(b"x", ns)), metadata=who),
    "BatchUpdateBlobs": lambda live, ns, who: live.cas.BatchUpdateBlobs(pb.BatchUpdateBlobsRequest(instance_name=ns), metadata=who),
    "SpliceBlob": lambda live, ns, who: live.cas.SpliceBlob(pb.SpliceBlobRequest(instance_name=ns, blob_digest=digest(b"x")), metadata=who),
    "UpdateActionResult": lambda live, ns, who: live.actions.UpdateActionResult(pb.UpdateActionResultRequest(instance_name=ns, action_digest=digest(b"x")), metadata=who),
    "PutRecords": lambda live, ns, who: live.team.PutRecords(team_pb2.PutRecordsRequest(instance_name=ns), metadata=who),
    "Read": lambda live, ns, who: list(live.stream.Read(bs.ReadRequest(resource_name=read_name(b"x", ns)), metadata=who)),
    "FindMissingBlobs": lambda live, ns, who: live.missing(digest(b"x"), namespace=ns, metadata=who),
    "BatchReadBlobs": lambda live, ns, who: live.cas.BatchReadBlobs(pb.BatchReadBlobsRequest(instance_name=ns), metadata=who),
    "GetTree": lambda live, ns, who: list(live.cas.GetTree(pb.GetTreeRequest(instance_name=ns, root_digest=digest(b"x")), metadata=who)),
    "SplitBlob": lambda live, ns, who: live.cas.SplitBlob(pb.SplitBlobRequest(instance_name=ns, blob_digest=digest(b"x")), metadata=who),
    "GetActionResult": lambda live, ns, who: live.actions.GetActionResult(pb.GetActionResultRequest(instance_name=ns, action_digest=digest(b"x")), metadata=who),
    "GetCapabilities": lambda live, ns, who: live.capabilities.GetCapabilities(pb.GetCapabilitiesRequest(instance_name=ns), metadata=who),
    "FindActionResults": lambda live, ns, who: live.team.FindActionResults(team_pb2.FindActionResultsRequest(instance_name=ns), metadata=who),
    "FindRecords": lambda live, ns, who: live.team.FindRecords(team_pb2.FindRecordsRequest(instance_name=ns, kind="forms"), metadata=who),
    "ListBuilds": lambda live, ns, who: live.team.ListBuilds(team_pb2.ListBuildsRequest(instance_name=ns), metadata=who),
}
WRITING = ("Write", "QueryWriteStatus", "BatchUpdateBlobs", "SpliceBlob", "UpdateActionResult", "PutRecords")


@pytest.mark.parametrize("method", CALLS)
def test_every_method_is_guarded(guarded: Live, method: str) -> None:
    call = CALLS[method]
    assert failure(lambda: call(guarded, "main", NOBODY)).code == UNKNOWN
    assert failure(lambda: call(guarded, "main", FORK)).code == DENIED
    assert failure(lambda: call(guarded, "main/../x", MAIN)).code == grpc.StatusCode.INVALID_ARGUMENT
    if method in WRITING:
        assert failure(lambda: call(guarded, "main", PR)).code == DENIED
        assert failure(lambda: call(guarded, "main", READER)).code == DENIED
    else:
        assert code_of(lambda: call(guarded, "main", PR)) in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_every_method_of_the_services_is_among_them() -> None:
    from cache.server.server import SERVICES

    methods = {method.name for service in SERVICES for method in service.methods}
    assert methods - {"Hello"} == set(CALLS)


def test_a_quota_refuses_before_anything_is_stored(guarded: Live) -> None:
    data = noise(10_000_001)
    refused = failure(lambda: guarded.write(data, namespace="main", metadata=MAIN))
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert guarded.missing(digest(data), namespace="main", metadata=MAIN)


def test_readers_are_told_that_they_cannot_write(guarded: Live) -> None:
    ask = lambda who: guarded.capabilities.GetCapabilities(pb.GetCapabilitiesRequest(instance_name="main"), metadata=who)  # noqa: E731
    assert ask(MAIN).cache_capabilities.action_cache_update_capabilities.update_enabled
    assert not ask(PR).cache_capabilities.action_cache_update_capabilities.update_enabled
