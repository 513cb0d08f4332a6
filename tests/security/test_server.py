"""`buildgraph serve` against callers who mean no good: the right status, and one line in the log."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import TYPE_CHECKING

import grpc
import pytest
import zstandard
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import remote_execution_pb2 as pb
from measured import MB, refused_lines
from serving import Client, Refusal, Serving, call, digest_of, make_token

from cache.server.server import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

METHODS = [f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods]


# who may not come in


def test_every_method_wants_a_token_and_says_how_to_send_it(guarded: Serving, connect: Callable[..., Client]) -> None:
    client = connect(guarded)
    for method in METHODS:
        with Refusal() as refused:
            client.channel.unary_unary(method)(b"", timeout=10)
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED, method
        assert "authorization: Bearer TOKEN" in refused.text
    assert refused_lines(guarded) == [(method.rpartition("/")[2], "UNAUTHENTICATED") for method in METHODS]
    assert guarded.metric('buildgraph_requests_total{method="Write",status="UNAUTHENTICATED"}') == 1


def test_a_token_that_is_revoked_ends_an_upload_that_comes_back(serve: Callable[..., Serving], connect: Callable[..., Client], tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read,write")
    other = make_token(tmp_path / "served", "--name", "other", "--scope", "read,write")
    serving = serve()
    client, stranger = connect(serving, secret), connect(serving, other)
    data = os.urandom(3 * MB)
    digest = digest_of(data)
    name = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size_bytes}"
    half = bs.WriteRequest(resource_name=name, data=data[:MB])
    assert client.streams.Write(iter([half]), metadata=client.metadata).committed_size == MB
    rest = bs.WriteRequest(resource_name=name, write_offset=MB, data=data[MB:], finish_write=True)
    # Nobody else goes on with it, or learns how far it is, whatever they know of its name.
    status = bs.QueryWriteStatusRequest(resource_name=name)
    assert stranger.streams.QueryWriteStatus(status, metadata=stranger.metadata).committed_size == 0
    with Refusal() as refused:
        stranger.streams.Write(iter([rest]), metadata=stranger.metadata)
    assert refused.code is grpc.StatusCode.OUT_OF_RANGE
    assert client.streams.QueryWriteStatus(status, metadata=client.metadata).committed_size == MB
    assert call("serve", "token", "revoke", "me", "--store", tmp_path / "served").returncode == 0
    time.sleep(1.1)
    for attempt in (
        lambda: client.streams.Write(iter([rest]), metadata=client.metadata),
        lambda: client.streams.QueryWriteStatus(status, metadata=client.metadata),
    ):
        with Refusal() as refused:
            attempt()
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
        assert "me is revoked" in refused.text
    assert [line["who"] for line in serving.events("refused")] == ["other", "me", "me"]
    assert stranger.missing(digest)


# names that are none


@pytest.mark.parametrize("method", ["Read", "Write"])
def test_path_tricks_in_resource_names_reach_no_file(serve: Callable[..., Serving], connect: Callable[..., Client], tmp_path: Path, method: str) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    outside = tmp_path / "outside"
    outside.write_text("secret")
    good = digest_of(b"x")
    blob = f"blobs/{good.hash}/1"
    tricks = [
        f"../{blob}", f"main/../../{blob}", f"/{blob}", f"//{blob}", f"main//{blob}", f"%2e%2e/{blob}", f"ma\0in/{blob}", f"\n{blob}", f"main\r\n/{blob}",
        "blobs/../../outside/6", f"blobs/{outside}/6", "blobs/..%2f..%2foutside/6", f"blobs/{good.hash}/-1", f"blobs/{good.hash}/1e9", f"blobs/{good.hash}/٣",
        f"blobs/{good.hash.upper()}/1", f"blobs/{good.hash[:-1]}/1", f"blobs/{good.hash}/../1", f"blobs/sha512/{good.hash}/1", f"compressed-blobs/gzip/{good.hash}/1",
        f"blobs/{good.hash}/9223372036854775808", f"\x1b]0;owned\x07/{blob}", "x" * 100_000, f"{'a/' * 5000}{blob}",
    ]  # fmt: skip
    before = {path for path in tmp_path.rglob("*") if "served" not in path.parts}
    for trick in tricks:
        with Refusal() as refused:
            if method == "Read":
                list(client.streams.Read(bs.ReadRequest(resource_name=trick), timeout=10))
            else:
                start, found, end = trick.partition("blobs/")
                name = f"{start}uploads/../{found}{end}" if trick == tricks[0] else f"{start}uploads/{uuid.uuid4()}/{found}{end}"
                client.streams.Write(iter([bs.WriteRequest(resource_name=name, data=b"x", finish_write=True)]), timeout=10)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, trick[:200]
        assert len(refused.text) < 600, "what came is not sent back whole"
    assert {path for path in tmp_path.rglob("*") if "served" not in path.parts} == before
    lines = serving.log.read_bytes().splitlines()
    assert all(json.loads(line) for line in lines), "one event a line"
    assert not [byte for line in lines for byte in line if not 32 <= byte < 127], "and nothing that a terminal obeys"
    assert refused_lines(serving) == [(method, "INVALID_ARGUMENT")] * len(tricks)


# bytes that lie


def test_a_digest_that_lies_is_refused_in_every_way_to_write_one(serve: Callable[..., Serving], connect: Callable[..., Client]) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    data = os.urandom(100_000)
    said = digest_of(os.urandom(100_000))
    packed = zstandard.compress(data)

    def batch(content: bytes, compressor: int) -> None:
        request = pb.BatchUpdateBlobsRequest()
        request.requests.add(digest=said, data=content, compressor=compressor)
        status = client.cas.BatchUpdateBlobs(request, timeout=20).responses[0].status
        assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert said.hash in status.message

    def write(kind: str, content: bytes) -> None:
        name = f"uploads/{uuid.uuid4()}/{kind}/{said.hash}/{said.size_bytes}"
        with Refusal() as refused:
            client.streams.Write(iter([bs.WriteRequest(resource_name=name, data=content, finish_write=True)]), timeout=20)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "upload again" in refused.text

    batch(data, pb.Compressor.IDENTITY)
    batch(packed, pb.Compressor.ZSTD)
    write("blobs", data)
    write("compressed-blobs/zstd", packed)
    part = client.put(data)
    with Refusal() as refused:
        client.cas.SpliceBlob(pb.SpliceBlobRequest(blob_digest=said, chunk_digests=[part]), timeout=20)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    with Refusal() as refused:
        client.publish("an action", said)
    assert refused.code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert client.missing(said)
    assert client.result(digest_of(b"an action")) is None
    assert [line["method"] for line in serving.events("refused")] == ["BatchUpdateBlobs"] * 2 + ["Write"] * 2 + ["SpliceBlob", "UpdateActionResult"]
    serving.stop()
    assert call("cache", "verify", "--store", serving.store).returncode == 0
