"""The team's own service: results in batches, and records."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import grpc
import pytest
from buildgraph.v1 import remote_execution_pb2, team_pb2
from live import BLAKE3, Live, NamedGuard, digest, failure, noise

from cache.build_record import BuildRecord
from cache.server import shared_records
from cache.server.limits import MAX_BATCH, MAX_RECORD

if TYPE_CHECKING:
    from collections.abc import Callable

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Record = team_pb2.Record


def put(live: Live, *records: tuple[str, str, bytes], namespace: str = "") -> None:
    messages = [Record(kind=kind, key=key, value=value) for kind, key, value in records]
    live.team.PutRecords(team_pb2.PutRecordsRequest(instance_name=namespace, records=messages))


def find(live: Live, kind: str, *keys: str, namespace: str = "") -> dict[str, bytes]:
    request = team_pb2.FindRecordsRequest(instance_name=namespace, kind=kind, keys=keys)
    return {record.key: record.value for record in live.team.FindRecords(request).records}


def build(key: str, project: str = "shop", made_by: str = "ann@host") -> tuple[str, str, bytes]:
    record = BuildRecord(key, project, "Dockerfile", "", "linux/amd64", 1.0, 2.0, True, made_by, "", ())
    return "builds", key, record.encode()[2]


def builds(live: Live, **asked: object) -> list[str]:
    return [record.key for record in live.team.ListBuilds(team_pb2.ListBuildsRequest(**asked)).records]


def test_hello_says_who_is_who(started: Callable[..., Live]) -> None:
    live = started(NamedGuard({"ann": {"main": ("read", "write"), "pr/1": ("read",)}}))
    hello = live.team.Hello(team_pb2.HelloRequest(instance_name="main"), metadata=(("name", "ann"),))
    assert (hello.name, list(hello.scopes), list(hello.namespaces)) == ("ann", ["read", "write"], ["main", "pr/1"])
    assert hello.version
    other = live.team.Hello(team_pb2.HelloRequest(instance_name="elsewhere"), metadata=(("name", "ann"),))
    assert list(other.scopes) == []
    assert failure(lambda: live.team.Hello(team_pb2.HelloRequest())).code == grpc.StatusCode.UNAUTHENTICATED
    live.again()
    again = live.team.Hello(team_pb2.HelloRequest(), metadata=(("name", "ann"),))
    assert again.server_id == hello.server_id
    assert len(hello.server_id) == 32


def test_many_results_at_once(live: Live) -> None:
    live.put(b"there", namespace="main", function=BLAKE3)
    actions = [digest(b"%d" % number, BLAKE3) for number in range(5)]
    whole = remote_execution_pb2.ActionResult(
        output_files=[remote_execution_pb2.OutputFile(path="layer.tar", digest=digest(b"there", BLAKE3))]
    )
    for action in actions[:3]:
        live.actions.UpdateActionResult(
            remote_execution_pb2.UpdateActionResultRequest(
                instance_name="main", action_digest=action, action_result=whole, digest_function=BLAKE3
            )
        )
    request = team_pb2.FindActionResultsRequest(
        instance_name="main", digest_function=BLAKE3, action_digests=[actions[4], *actions[:2], actions[0]]
    )
    answer = live.team.FindActionResults(request)
    assert [each.action_digest for each in answer.found] == actions[:2]
    assert all(each.result == whole for each in answer.found)
    with live.store.transaction() as view:
        for key, _ in list(view.scan("members")):
            view.delete("members", key)
    assert not live.team.FindActionResults(request).found, "a result whose blob is gone is none"


def test_an_answer_that_would_be_too_large_says_what_it_left_out(live: Live) -> None:
    actions = [digest(b"%d" % number) for number in range(10)]
    result = remote_execution_pb2.ActionResult(stdout_raw=noise(MAX_BATCH // 6))
    for action in actions:
        live.actions.UpdateActionResult(
            remote_execution_pb2.UpdateActionResultRequest(action_digest=action, action_result=result)
        )
    asked, found = actions, []
    while asked:
        answer = live.team.FindActionResults(team_pb2.FindActionResultsRequest(action_digests=asked))
        assert answer.found
        found += [each.action_digest for each in answer.found]
        asked = list(answer.left_out)
    assert found == actions
    values = {f"key{number}": noise(MAX_RECORD, number) for number in range(6)}
    for key, value in values.items():
        put(live, ("forms", key, value))
    first = live.team.FindRecords(team_pb2.FindRecordsRequest(kind="forms", keys=[*values]))
    assert len(first.records) == 3
    assert find(live, "forms", *first.left_out) == {key: values[key] for key in first.left_out}


def test_records_are_kept_by_namespace_kind_and_key(live: Live) -> None:
    put(live, ("preimages", "k", b"1"), ("sources", "k", b"2"), ("places", "other", b"\0\xff"))
    put(live, ("preimages", "k", b"3"), namespace="main")
    live.again()
    assert find(live, "preimages", "k", "unknown") == {"k": b"1"}
    assert find(live, "preimages", "k", namespace="main") == {"k": b"3"}
    assert find(live, "sources", "k", "other") == {"k": b"2"}
    put(live, ("preimages", "k", b"new"))
    assert find(live, "preimages", "k") == {"k": b"new"}


@pytest.mark.parametrize(
    "record",
    [
        ("server", "id", b"x"), ("", "k", b""), ("results", "k", b""), ("forms", "", b""), ("forms", "a\0b", b""), ("forms", "k" * 401, b""),
        ("forms", "k", bytes(MAX_RECORD + 1)), ("builds", "k", b"no build"), ("builds", "k", zlib.compress(bytes(32 << 20))),
    ],
)  # fmt: skip
def test_records_that_are_not_taken(live: Live, record: tuple[str, str, bytes]) -> None:
    assert failure(lambda: put(live, ("forms", "good", b"1"), record)).code == INVALID
    assert find(live, "forms", "good") == {}, "all of them or none"


def test_a_record_with_a_bad_kind_is_not_looked_for(live: Live) -> None:
    assert failure(lambda: find(live, "server", "id")).code == INVALID


def test_builds_the_newest_first(live: Live) -> None:
    put(live, build("0001"), build("0003", "team/shop"), build("0002", "blog", "bob@host"), build("0004", "bigshop"))
    put(live, build("0009"), namespace="other")
    put(live, ("forms", "9999", b""))
    assert builds(live) == ["0004", "0003", "0002", "0001"]
    assert builds(live, limit=2) == ["0004", "0003"]
    assert builds(live, project="shop") == ["0003", "0001"]
    assert builds(live, made_by="bob@host") == ["0002"]
    assert builds(live, instance_name="other") == ["0009"]
    assert builds(live, instance_name="none") == []
    assert failure(lambda: builds(live, limit=-1)).code == INVALID


def test_old_records_make_room(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_records, "MAX_RECORDS", 3)
    for number in range(6):
        put(live, build(f"000{number}"), ("forms", f"{number}aa", b"%d" % number))
    assert builds(live) == ["0005", "0004", "0003"]
    left = find(live, "forms", *(f"{number}aa" for number in range(6)))
    assert len(left) == 3
    assert "5aa" in left
    put(live, ("forms", "5aa", b"again"))
    assert len(find(live, "forms", *(f"{number}aa" for number in range(6)))) == 3, "a record that is replaced needs no room"
