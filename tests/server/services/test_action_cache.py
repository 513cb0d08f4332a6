"""ActionCache: results by actions, and never one that lies."""

from __future__ import annotations

import grpc
import pytest
from buildgraph.v1 import remote_execution_pb2 as pb
from google.protobuf.any_pb2 import Any
from live import FUNCTIONS, IDS, Live, digest, failure, noise

from cache.prune import Filters, Limits, prune
from cache.verify import verify

ACTION = pb.Digest(hash="a" * 64, size_bytes=123)
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def update(live: Live, result: pb.ActionResult, namespace: str = "", function: int = 0, action: pb.Digest = ACTION) -> pb.ActionResult:
    request = pb.UpdateActionResultRequest(
        instance_name=namespace, action_digest=action, action_result=result, digest_function=function
    )
    return live.actions.UpdateActionResult(request)


def get(live: Live, namespace: str = "", function: int = 0, action: pb.Digest = ACTION, **wanted: object) -> pb.ActionResult:
    request = pb.GetActionResultRequest(instance_name=namespace, action_digest=action, digest_function=function, **wanted)
    return live.actions.GetActionResult(request)


def full_result(live: Live, function: int = 0, namespace: str = "") -> pb.ActionResult:
    """A result with all that one can have, and its blobs."""
    number = function or 1
    inner = pb.Directory(files=[pb.FileNode(name="deep", digest=digest(b"deep", number))])
    root = pb.Directory(directories=[pb.DirectoryNode(name="inner", digest=digest(inner.SerializeToString(), number))])
    tree = pb.Tree(root=root, children=[inner])
    blobs = [b"out", b"stdout", b"stderr", b"deep", *(each.SerializeToString() for each in (inner, root, tree))]
    live.put(*blobs, function=number, namespace=namespace)
    result = pb.ActionResult(
        output_files=[pb.OutputFile(path="out", digest=digest(b"out", number), is_executable=True)],
        output_directories=[
            pb.OutputDirectory(path="a", tree_digest=digest(tree.SerializeToString(), number)),
            pb.OutputDirectory(path="b", root_directory_digest=digest(root.SerializeToString(), number)),
        ],
        output_symlinks=[pb.OutputSymlink(path="link", target="out")],
        exit_code=7,
        stdout_digest=digest(b"stdout", number),
        stderr_digest=digest(b"stderr", number),
        execution_metadata=pb.ExecutedActionMetadata(
            worker="me", auxiliary_metadata=[Any(type_url="type.googleapis.com/some.Thing", value=b"opaque")]
        ),
    )
    result.execution_metadata.execution_start_timestamp.FromMilliseconds(1000)
    result.execution_metadata.execution_completed_timestamp.FromMilliseconds(3500)
    return result


@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
def test_a_result_comes_back_as_it_was(live: Live, function: int) -> None:
    result = full_result(live, function, "a/b")
    assert update(live, result, "a/b", function) == result
    live.again()
    assert get(live, "a/b", function) == result


def test_other_namespaces_functions_and_actions_have_other_results(live: Live) -> None:
    for number, (namespace, function) in enumerate([("", 1), ("", 9), ("x", 1)]):
        update(live, pb.ActionResult(exit_code=number), namespace, function)
    assert [get(live, *where).exit_code for where in [("", 1), ("", 9), ("x", 1)]] == [0, 1, 2]
    assert failure(lambda: get(live, "x", 9)).code == NOT_FOUND
    assert failure(lambda: get(live, action=pb.Digest(hash="a" * 64, size_bytes=124))).code == NOT_FOUND
    update(live, pb.ActionResult(exit_code=99), "", 1)
    assert get(live).exit_code == 99, "the last one counts; clients that do not say a function mean SHA256"


def test_what_an_action_is_is_never_looked_at(live: Live) -> None:
    blob = noise(500)
    live.put(blob)
    update(live, pb.ActionResult(exit_code=3), action=digest(blob))
    assert get(live, action=digest(blob)).exit_code == 3


@pytest.mark.parametrize("gone", [b"out", b"stdout", b"stderr", b"deep"])
def test_a_result_whose_blob_is_missing_is_not_taken_and_not_given(live: Live, gone: bytes) -> None:
    result = full_result(live)
    update(live, result)
    with live.store.transaction() as view:
        for key, row in list(view.scan("members")):
            if view.get("aliases", f"{digest(gone).hash}/{len(gone)}") == row[: row.index(b",")].removeprefix(b"["):
                view.delete("members", key)
    assert live.missing(digest(gone)) == [digest(gone)]
    assert failure(lambda: get(live)).code == NOT_FOUND
    refused = failure(lambda: update(live, result))
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert digest(gone).hash in refused.text
    live.put(gone)
    assert get(live) == result, "with the blob the record is true again"


@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
def test_an_empty_blob_has_one_name_only(live: Live, function: int) -> None:
    update(live, pb.ActionResult(stdout_digest=digest(b"", function)), function=function)
    false = pb.ActionResult(stdout_digest=pb.Digest(hash="a" * 64, size_bytes=0))
    refused = failure(lambda: update(live, false, function=function))
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{'a' * 64}/0" in refused.text
    assert not get(live, function=function).stdout_digest.hash.startswith("aaaa")


def test_results_that_make_no_sense(live: Live) -> None:
    live.put(b"\xff no tree")
    tree = pb.ActionResult(output_directories=[pb.OutputDirectory(path="a", tree_digest=digest(b"\xff no tree"))])
    assert failure(lambda: update(live, tree)).code == grpc.StatusCode.INVALID_ARGUMENT
    no_digest = pb.ActionResult(output_files=[pb.OutputFile(path="a")])
    assert failure(lambda: update(live, no_digest)).code == grpc.StatusCode.INVALID_ARGUMENT
    assert failure(lambda: update(live, pb.ActionResult(), action=pb.Digest())).code == grpc.StatusCode.INVALID_ARGUMENT
    assert failure(lambda: get(live, "../x")).code == grpc.StatusCode.INVALID_ARGUMENT
    update(live, pb.ActionResult(output_files=[pb.OutputFile(path="empty", digest=digest(b""))]))
    assert get(live).output_files[0].path == "empty", "the empty blob need not be uploaded"


def test_outputs_in_the_answer_itself(live: Live) -> None:
    big = noise(2 << 20)
    live.write(big)
    result = full_result(live)
    result.output_files.add(path="big", digest=digest(big))
    update(live, result)
    plain = get(live)
    assert [plain.stdout_raw, plain.stderr_raw, plain.output_files[0].contents] == [b"", b"", b""]
    asked = get(live, inline_stdout=True, inline_stderr=True, inline_output_files=["out", "big", "unknown"])
    assert (asked.stdout_raw, asked.stderr_raw) == (b"stdout", b"stderr")
    assert [file.contents for file in asked.output_files] == [b"out", b""], "what is too large is read by its digest"
    only = get(live, inline_stderr=True)
    assert (only.stdout_raw, only.stderr_raw) == (b"", b"stderr")


def test_clean_ups_of_the_store_keep_what_belongs_to_namespaces(live: Live) -> None:
    """prune and verify of the local store know nothing of namespaces, but what a record names stays."""
    result = full_result(live)
    update(live, result)
    big = noise(1 << 20)
    live.write(big, namespace="x")
    prune(live.store, Filters(), Limits(max_used=0))
    verified = verify(live.store)
    assert not verified.problems
    assert verified.orphans == 0
    assert get(live) == result
    assert live.get(digest(big), namespace="x") == [big]
