"""ByteStream: large blobs in and out."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
import zstandard
from buildgraph.v1 import bytestream_pb2 as bs
from live import BLAKE3, FUNCTIONS, IDS, Live, digest, failure, memory, noise, read_name, write_name, write_requests

from cache.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (1, 1000, 32 << 10, (32 << 10) + 1, (3 << 20) + 17)
"""Around where a blob becomes a file, and more than one message."""
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read_under_both_functions(live: Live, size: int, function: int) -> None:
    data = noise(size)
    assert live.write(data, namespace="team/main", function=function, piece=100_000) == size
    for other in FUNCTIONS:
        assert live.read(read_name(data, "team/main", other)) == data
        assert not live.missing(digest(data, other), namespace="team/main", function=other)


@pytest.mark.parametrize("size", SIZES)
def test_compressed_in_and_out(live: Live, size: int) -> None:
    data = noise(size // 2) + bytes(size - size // 2)
    packed = zstandard.compress(data, 3)
    name = write_name(data, zstd=True, function=BLAKE3)
    assert live.stream.Write(write_requests(name, packed, 70_000)).committed_size == len(packed)
    assert live.read(read_name(data)) == data
    answer = live.read(read_name(data, zstd=True))
    assert zstandard.ZstdDecompressor().decompressobj().decompress(answer) == data
    if size > 100_000:
        assert len(answer) < size * 0.6
        offset = live.read(read_name(data, zstd=True), offset=size - 1000)
        assert zstandard.ZstdDecompressor().decompressobj().decompress(offset) == data[-1000:]


def test_frames_one_after_the_other_are_one_stream(live: Live) -> None:
    data = noise(100_000)
    packed = b"".join(zstandard.compress(data[at : at + 7000]) for at in range(0, len(data), 7000))
    live.stream.Write(write_requests(write_name(data, zstd=True), packed, 999))
    assert live.read(read_name(data)) == data


def test_the_empty_blob_is_always_there(live: Live) -> None:
    for function in FUNCTIONS:
        assert live.read(read_name(b"", "any", function)) == b""
        assert not live.missing(digest(b"", function), namespace="any", function=function)
        assert live.write(b"", namespace="any", function=function) == 0
    assert live.get(digest(b"")) == [b""]


def test_parts_of_a_blob(live: Live) -> None:
    data = noise(3 << 20)
    live.write(data)
    name = read_name(data)
    assert live.read(name, offset=1_500_000) == data[1_500_000:]
    assert live.read(name, offset=10, limit=2_000_000) == data[10:2_000_010]
    assert live.read(name, limit=5) == data[:5]
    assert live.read(name, offset=len(data)) == b""
    assert live.read(name, offset=len(data) - 1, limit=100) == data[-1:]


def test_what_cannot_be_read_says_why(live: Live) -> None:
    data = noise(50_000)
    gone = failure(lambda: live.read(read_name(data, "main")))
    assert gone.code == grpc.StatusCode.NOT_FOUND
    assert "FindMissingBlobs" in gone.text
    assert "main" in gone.text
    live.write(data)
    name = read_name(data)
    assert failure(lambda: live.read(name, offset=50_001)).code == grpc.StatusCode.OUT_OF_RANGE
    assert failure(lambda: live.read(name, offset=-1)).code == grpc.StatusCode.OUT_OF_RANGE
    assert failure(lambda: live.read(name, limit=-1)).code == INVALID
    assert failure(lambda: live.read(read_name(data, zstd=True), limit=1)).code == INVALID
    assert failure(lambda: live.read("blobs/abc/1")).code == INVALID
    assert failure(lambda: live.read(name[:-5] + "49999")).code == grpc.StatusCode.NOT_FOUND, "another size is another blob"


def test_a_write_of_what_is_there_ends_at_once(live: Live) -> None:
    data = noise(8 << 20)
    live.write(data)
    sent = 0

    def requests() -> Iterator[bs.WriteRequest]:
        nonlocal sent
        for request in write_requests(write_name(data), data, 100_000):
            sent += len(request.data)
            yield request
            time.sleep(0.02)

    assert live.stream.Write(requests()).committed_size == len(data)
    assert sent < len(data) // 2
    first = bs.WriteRequest(resource_name=write_name(data, zstd=True, function=BLAKE3), data=b"anything")
    assert live.stream.Write(iter([first])).committed_size == -1, "what the API says of compressed ones"


@pytest.mark.parametrize("size", [1000, 100_000])
@pytest.mark.parametrize("function", FUNCTIONS, ids=IDS)
@pytest.mark.parametrize("sent", ["other", "longer", "shorter", "empty"])
def test_a_digest_that_lies(live: Live, size: int, function: int, sent: str) -> None:
    data = noise(size)
    lie = {"other": data[:-1] + b"?", "longer": data + b"?", "shorter": data[:-1], "empty": b""}[sent]
    name = write_name(data, function=function)
    refused = failure(lambda: live.stream.Write(write_requests(name, lie, 300)))
    assert refused.code == INVALID
    assert "digest" in refused.text or "upload again" in refused.text
    for other in FUNCTIONS:
        assert live.missing(digest(data, other), function=other) == [digest(data, other)]
        assert live.missing(digest(lie, other), function=other) == [digest(lie, other)] * bool(lie)
    assert live.stream.Write(write_requests(name, data, 300_000)).committed_size == size, "the right bytes are taken after it"


def test_messages_that_do_not_fit_together(live: Live) -> None:
    data = noise(1000)
    name = write_name(data)
    request = bs.WriteRequest
    assert failure(lambda: live.stream.Write(iter([]))).code == INVALID
    assert failure(lambda: live.stream.Write(iter([request(resource_name=read_name(data), data=data)]))).code == INVALID
    hole = [request(resource_name=name, data=data[:10]), request(write_offset=20, data=data[20:], finish_write=True)]
    assert failure(lambda: live.stream.Write(iter(hole))).code == INVALID
    other = [request(resource_name=name, data=data[:10]), request(resource_name=write_name(data), write_offset=10, data=data[10:])]
    assert failure(lambda: live.stream.Write(iter(other))).code == INVALID
    late = failure(lambda: live.stream.Write(iter([request(resource_name=name, write_offset=500, data=data[500:])])))
    assert late.code == grpc.StatusCode.OUT_OF_RANGE
    assert "QueryWriteStatus" in late.text


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize("size", [20_000, 3 << 20])
def test_a_broken_write_goes_on(live: Live, size: int, zstd: bool) -> None:
    data = noise(size)
    wire = zstandard.compress(data) if zstd else data
    name = write_name(data, zstd=zstd)
    half = len(wire) // 2
    broken = threading.Event()

    def requests() -> Iterator[bs.WriteRequest]:
        yield bs.WriteRequest(resource_name=name, data=wire[:half])
        broken.wait(10)
        raise RuntimeError("the network is gone")

    status = live.stream.QueryWriteStatus
    call = live.stream.Write.future(requests())
    until(lambda: status(bs.QueryWriteStatusRequest(resource_name=name)).committed_size == half)
    call.cancel()
    broken.set()
    assert not status(bs.QueryWriteStatusRequest(resource_name=name)).complete
    assert live.stream.Write(write_requests(name, wire, 100_000, half)).committed_size == len(wire)
    done = status(bs.QueryWriteStatusRequest(resource_name=name))
    assert (done.committed_size, done.complete) == (size, True)
    assert live.read(read_name(data)) == data


def test_a_write_that_begins_again_forgets_what_came(live: Live) -> None:
    data = noise(100_000)
    name = write_name(data)
    first = bs.WriteRequest(resource_name=name, data=b"wrong")
    assert live.stream.Write(iter([first])).committed_size == 5
    assert live.stream.Write(write_requests(name, data)).committed_size == len(data)
    unknown = live.stream.QueryWriteStatus(bs.QueryWriteStatusRequest(resource_name=write_name(noise(9, 9))))
    assert (unknown.committed_size, unknown.complete) == (0, False)


def test_a_client_that_came_back_takes_its_upload_over(live: Live) -> None:
    data = noise(1 << 20)
    name = write_name(data)
    go_on = threading.Event()

    def requests() -> Iterator[bs.WriteRequest]:
        yield bs.WriteRequest(resource_name=name, data=data[:1000])
        go_on.wait(10)
        yield bs.WriteRequest(write_offset=1000, data=data[1000:2000])

    old = live.stream.Write.future(requests())
    status = live.stream.QueryWriteStatus
    until(lambda: status(bs.QueryWriteStatusRequest(resource_name=name)).committed_size == 1000)
    assert live.stream.Write(write_requests(name, data, 1 << 20, 1000)).committed_size == len(data)
    go_on.set()
    with pytest.raises(grpc.RpcError):
        old.result(10)
    assert old.code() == grpc.StatusCode.ABORTED
    assert live.read(read_name(data)) == data


@pytest.mark.parametrize("damage", ["garbage", "cut", "flipped"])
def test_zstd_that_is_none(live: Live, damage: str) -> None:
    data = noise(100_000)
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    sent = {"garbage": b"no zstd" * 100, "cut": packed[:-5], "flipped": packed[:5000] + bytes([packed[5000] ^ 1]) + packed[5001:]}[damage]
    assert failure(lambda: live.stream.Write(write_requests(write_name(data, zstd=True), sent))).code == INVALID
    assert live.missing(digest(data)) == [digest(data)]


def test_a_bomb_is_refused_in_bounded_memory(live: Live) -> None:
    data = noise(1000)
    bomb = zstandard.compress(bytes(4 << 30 >> 2), 19)  # 1 GiB in some 35 KB
    assert len(bomb) < 100_000
    before = memory()
    refused = failure(lambda: live.stream.Write(write_requests(write_name(data, zstd=True), bomb)))
    assert refused.code == INVALID
    assert "1000 bytes" in refused.text
    assert memory() - before < 100 << 20


def test_a_window_that_takes_too_much_memory_is_refused(live: Live) -> None:
    data = bytes(200 << 20)
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(data) + packer.flush()
    refused = failure(lambda: live.stream.Write(write_requests(write_name(data, zstd=True), packed)))
    assert refused.code == INVALID
    assert "window" in refused.text


def test_a_message_that_is_too_large(live: Live) -> None:
    data = noise(6 << 20)
    refused = failure(lambda: live.write(data, piece=6 << 20))
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert live.write(data, piece=4 << 20) == len(data)


@pytest.mark.alone
def test_a_stream_that_does_not_move_is_ended(started: Callable[..., Live]) -> None:
    live = started(idle_seconds=0.5)
    data = noise(100_000)
    name = write_name(data)
    end = threading.Event()

    def requests() -> Iterator[bs.WriteRequest]:
        yield bs.WriteRequest(resource_name=name, data=data[:100])
        at = 100
        while not end.wait(0.1):  # a little now and then does not help
            yield bs.WriteRequest(write_offset=at, data=data[at : at + 1])
            at += 1

    start = time.monotonic()
    ended = failure(lambda: live.stream.Write(requests()))
    end.set()
    assert ended.code == grpc.StatusCode.CANCELLED
    assert time.monotonic() - start < 20
    until(lambda: live.server.core.watchdog.streams == 0)


@pytest.mark.parametrize("method", ["ActionCache/GetActionResult", "ContentAddressableStorage/FindMissingBlobs"])
def test_calls_that_never_say_anything_do_not_hold_the_server(started: Callable[..., Live], method: str) -> None:
    live = started(idle_seconds=2.0)
    live.put(b"x")
    end = threading.Event()

    def silent() -> Iterator[bytes]:
        end.wait(20)
        yield b""

    call = live.channel.stream_unary(f"/build.bazel.remote.execution.v2.{method}")
    held = [call.future(silent()) for _ in range(130)]  # one for each thread, and more
    until(lambda: not live.missing(digest(b"x")))
    until(lambda: all(each.done() for each in held))
    end.set()
    assert {each.code() for each in held} == {grpc.StatusCode.CANCELLED}


def test_a_reader_that_does_not_read_is_ended(started: Callable[..., Live]) -> None:
    live = started(idle_seconds=3.0)  # more than a busy machine holds up the write
    data = noise(64 << 20)
    live.write(data)
    call = live.stream.Read(bs.ReadRequest(resource_name=read_name(data)))
    next(call)
    until(lambda: live.server.core.watchdog.streams == 1)
    until(lambda: live.server.core.watchdog.streams == 0)
    with pytest.raises(grpc.RpcError):
        list(call)


def test_a_stream_that_moves_is_left_alone(started: Callable[..., Live]) -> None:
    live = started(idle_seconds=2.0)
    data = noise(1 << 20)

    def requests() -> Iterator[bs.WriteRequest]:
        for request in write_requests(write_name(data), data, 200_000):
            time.sleep(0.6)
            yield request

    assert live.stream.Write(requests()).committed_size == len(data)


def test_32_writers_at_once(live: Live) -> None:
    blobs = [noise(300_000 + number, number) for number in range(28)] + [noise(500_000, 99)] * 4
    written: list[int] = []

    def write(number: int) -> None:
        live.write(blobs[number], namespace=f"ns{number % 3}", function=FUNCTIONS[number % 2], piece=50_000)
        written.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == list(range(32))
    live.again()
    for number, blob in enumerate(blobs):
        assert live.read(read_name(blob, f"ns{number % 3}")) == blob
    verified = verify(live.store)
    assert not verified.problems
    assert verified.blobs == 29
    assert not verified.orphans, "what belongs to a namespace is kept"


def test_a_blob_that_the_disk_lost_is_not_made_up(live: Live) -> None:
    data = noise(2 << 20)
    live.write(data)
    file = next(path for path in (live.path / "blobs").rglob("*") if path.is_file())
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.truncate(1 << 20)
    lost = failure(lambda: live.read(read_name(data)))
    assert lost.code == grpc.StatusCode.NOT_FOUND
    assert "upload it again" in lost.text


@pytest.mark.slow
def test_too_many_streams_are_refused_not_queued(live: Live) -> None:
    data = noise(64 << 20)
    live.write(data)
    held = [live.stream.Read(bs.ReadRequest(resource_name=read_name(data))) for _ in range(64)]
    for call in held:
        next(call)
    refused = failure(lambda: live.read(read_name(data)))
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "try again" in refused.text
    assert not live.missing(digest(data)), "short requests find a thread"
    for call in held:
        call.cancel()
    until(lambda: live.server.core.watchdog.streams == 0)
    assert len(live.read(read_name(data))) == len(data)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


