"""Blobs as sequences of chunks: cut, moved in parts, put together again, stored once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from buildgraph.v1 import remote_execution_pb2 as pb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import BLAKE3, FUNCTIONS, IDS, SHA256, Live, digest, failure, hash_of, noise, read_name, stored_bytes

from cache.chunks import AVERAGE, LEAST, MOST, WHOLE, cut, cut_buffer

if TYPE_CHECKING:
    from pathlib import Path

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def split(live: Live, data: bytes, function: int = SHA256, namespace: str = "") -> list[pb.Digest]:
    request = pb.SplitBlobRequest(instance_name=namespace, blob_digest=digest(data, function), digest_function=function)
    return list(live.cas.SplitBlob(request).chunk_digests)


def splice(live: Live, data: bytes, chunks: list[pb.Digest], function: int = SHA256, namespace: str = "") -> pb.Digest:
    request = pb.SpliceBlobRequest(
        instance_name=namespace, blob_digest=digest(data, function), chunk_digests=chunks, digest_function=function,
        chunking_function=pb.ChunkingFunction.FAST_CDC_2020,
    )  # fmt: skip
    return live.cas.SpliceBlob(request).blob_digest


def parts_of(data: bytes) -> list[bytes]:
    return [data[chunk.offset : chunk.offset + chunk.digest.size] for chunk in cut_buffer(data)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5 * WHOLE), st.integers(0, 3), st.integers(0, 2 * WHOLE))
def test_chunks_are_the_blob_and_of_the_right_sizes(size: int, seed: int, zeros: int) -> None:
    data = noise(size, seed) + bytes(zeros)
    chunks = list(cut_buffer(data, sha256=True))
    parts = [data[chunk.offset : chunk.offset + chunk.digest.size] for chunk in chunks]
    assert b"".join(parts) == data
    assert [(chunk.digest.hash, chunk.sha256) for chunk in chunks] == [(hash_of(p, BLAKE3), hash_of(p)) for p in parts]
    if len(data) < WHOLE:
        assert len(chunks) == bool(data)
    else:
        assert all(LEAST <= len(part) <= MOST for part in parts[:-1])


def test_a_file_is_cut_as_its_bytes(tmp_path: Path) -> None:
    data = noise(9_000_000)
    (tmp_path / "file").write_bytes(data)
    assert cut(str(tmp_path / "file"), sha256=True) == list(cut_buffer(data, sha256=True))
    (tmp_path / "empty").write_bytes(b"")
    assert cut(str(tmp_path / "empty")) == []


def test_cuts_stay_where_they_were_when_something_is_inserted() -> None:
    data = noise(20 * AVERAGE)
    before = {chunk.digest for chunk in cut_buffer(data)}
    after = [chunk.digest for chunk in cut_buffer(data[:5_000_000] + b"inserted" + data[5_000_000:])]
    assert sum(chunk not in before for chunk in after) <= 2


@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
def test_a_stored_blob_is_split_and_stored_once(live: Live, function: int) -> None:
    data = noise(6_000_000)
    live.write(data, namespace="main")
    before = stored_bytes(live.path)
    chunks = split(live, data, function, "main")
    assert chunks == [digest(part, function) for part in parts_of(data)]
    assert len(chunks) > 3
    assert stored_bytes(live.path) == before
    assert not live.missing(*chunks, namespace="main", function=function)
    assert b"".join(live.get(chunk, namespace="main", function=function)[0] or b"" for chunk in chunks) == data
    part = parts_of(data)[1]
    for other in (function, BLAKE3):
        assert live.read(read_name(part, "main", other)) == part
        assert live.read(read_name(part, "main", other), 1000, 5000) == part[1000:6000]
    live.again()
    assert split(live, data, function, "main") == chunks
    assert live.missing(*chunks, namespace="other/trust", function=function) == [], "anonymous callers may read main"


def test_short_blobs_are_left_whole(live: Live) -> None:
    for data in (b"short", noise(WHOLE - 1)):
        live.put(data)
        assert split(live, data) == [digest(data)]
    assert split(live, b"") == []


def test_what_cannot_be_split(live: Live) -> None:
    assert failure(lambda: split(live, noise(3_000_000))).code == grpc.StatusCode.NOT_FOUND
    live.put(b"x")
    request = pb.SplitBlobRequest(blob_digest=digest(b"x"), chunking_function=pb.ChunkingFunction.REP_MAX_CDC)
    assert failure(lambda: live.cas.SplitBlob(request)).code == INVALID


@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
def test_a_changed_blob_moves_what_changed(live: Live, function: int) -> None:
    old = noise(8_000_000)
    new = old[:3_000_000] + b"a new line\n" + old[3_000_000:]
    live.write(old, namespace="main")
    split(live, old, function, "main")
    parts = parts_of(new)
    missing = live.missing(*(digest(part, function) for part in parts), namespace="main", function=function)
    assert len(missing) <= 2
    live.put(*(part for part in parts if digest(part, function) in missing), namespace="main", function=function)
    assert splice(live, new, [digest(part, function) for part in parts], function, "main") == digest(new, function)
    for other in FUNCTIONS:
        assert live.read(read_name(new, "main", other)) == new
    assert split(live, new, function, "main") == [digest(part, function) for part in parts]
    assert not live.missing(*(digest(part, function) for part in parts), namespace="main", function=function)
    with live.store.view() as view:
        members = [key for key, _ in view.scan("members")]
    assert len(members) == 2, "loose chunks are parts of the new blob from now on"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 9)), min_size=1, max_size=12), st.sampled_from(FUNCTIONS))
def test_any_parts_make_a_blob(live: Live, shape: list[tuple[int, int]], function: int) -> None:
    parts = [noise(size, seed) for size, seed in shape]
    data = b"".join(parts)
    live.put(*parts, function=function)
    splice(live, data, [digest(part, function) for part in parts], function)
    assert live.read(read_name(data, function=function)) == data


def test_what_cannot_be_spliced(live: Live) -> None:
    first, second = noise(200_000, 1), noise(200_000, 2)
    live.put(first)
    whole = first + second
    gone = failure(lambda: splice(live, whole, [digest(first), digest(second)]))
    assert gone.code == grpc.StatusCode.NOT_FOUND
    assert hash_of(second) in gone.text
    live.put(second)
    for chunks in ([digest(second), digest(first)], [digest(first)], [digest(first), digest(first)], []):
        assert failure(lambda chunks=chunks: splice(live, whole, chunks)).code == INVALID
        assert live.missing(digest(whole)) == [digest(whole)]
    assert not live.missing(digest(first), digest(second)), "they are not thrown away for that"
    splice(live, whole, [digest(first), digest(second)])
    assert splice(live, whole, []) == digest(whole), "what is there needs no chunks"


def test_a_result_keeps_a_blob_that_is_a_chunk_too(live: Live) -> None:
    data = noise(5_000_000)
    live.write(data)
    chunk = parts_of(data)[0]
    split(live, data)
    action = pb.Digest(hash="a" * 64, size_bytes=1)
    result = pb.ActionResult(output_files=[pb.OutputFile(path="out", digest=digest(chunk))])
    live.actions.UpdateActionResult(pb.UpdateActionResultRequest(action_digest=action, action_result=result))
    with live.store.transaction() as view:
        for key, _ in list(view.scan("members")):
            if key.endswith(f"/{len(data)}"):
                view.delete("members", key)
    assert live.missing(digest(data)) == [digest(data)]
    assert live.actions.GetActionResult(pb.GetActionResultRequest(action_digest=action)) == result
    assert live.read(read_name(chunk)) == chunk
