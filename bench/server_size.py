"""Measure what a served store and its server take: bytes of records, memory idle and under load, time of clean-ups.

Usage: bench/server_size.py [--results N] [--seconds N]. The figures of docs/operate.md come from here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import grpc
from buildgraph.v1 import bytestream_pb2 as bs
from buildgraph.v1 import bytestream_pb2_grpc, team_pb2, team_pb2_grpc
from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import remote_execution_pb2_grpc as services

from cache.lmdb_store import LmdbStore
from cache.server.holdings import take_holdings
from cache.server.quotas import Quotas
from cache.server.shedding import Demands, plan_shedding

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTING, LOG, PREIMAGE = 4_000, 1_000, 1_500
"""Bytes of what comes with a step's layer, about the median of the builds of `examples`."""
LAYER = 40_000
"""Bytes of a layer, just so many that it is a file of its own."""
CLIENTS = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="buildgraph-size-") as directory:
        store = os.path.join(directory, "store")
        with serving(store) as (process, address):
            time.sleep(1)
            say("memory idle, new store", mib(resident(process.pid)))
            empty = os.path.getsize(os.path.join(store, "data.mdb"))
            publish(address, options.results)
            grown = os.path.getsize(os.path.join(store, "data.mdb")) - empty
            say("records and small blobs of 1,000 results", mib(grown * 1000 // options.results))
            say("memory after that", mib(resident(process.pid)))
        with serving(store) as (process, address):
            time.sleep(1)
            say(f"memory idle, {options.results} results", mib(resident(process.pid)))
            rate, peak = load(process.pid, address, options.seconds)
            say(f"memory at {CLIENTS} clients that read and ask", f"{mib(peak)} ({rate:.0f} calls/s by one process)")
        cleaning(store)
    return 0


def cleaning(directory: str) -> None:
    store = LmdbStore(directory)
    began = time.monotonic()
    Quotas(store)
    say("counting all", f"{time.monotonic() - began:.2f} s")
    began = time.monotonic()
    with store.view() as view:
        holdings = take_holdings(view)
    shed = plan_shedding(holdings, Demands(sum(holdings.sizes) // 10, lambda _: None), time.time() + 86_400)
    text = f"{time.monotonic() - began:.2f} s for {len(holdings.sizes)} blobs, {len(holdings.actions)} results"
    say("deciding what a tenth of it is", f"{text}; {len(shed.actions)} go")
    store.close()


@contextlib.contextmanager
def serving(store: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "compiler", "serve", "--store", store, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--anonymous", "write"], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split("grpc://")[1].strip()
    finally:
        process.terminate()
        process.wait()


def publish(address: str, count: int) -> None:
    """As builds do: a layer, its listing, a log; the result under both keys; the records that explain it."""
    with grpc.insecure_channel(address) as channel:
        cas, actions = services.ContentAddressableStorageStub(channel), services.ActionCacheStub(channel)
        team = team_pb2_grpc.TeamStub(channel)
        for number in range(count):
            request = pb.BatchUpdateBlobsRequest(instance_name="main")
            result = pb.ActionResult()
            for name, size in (("layer.tar", LAYER), ("layer.index", LISTING), ("log", LOG)):
                data = os.urandom(size)
                request.requests.add(digest=digest_of(data), data=data)
                result.output_files.add(path=name, digest=digest_of(data))
            cas.BatchUpdateBlobs(request)
            for kind in ("content", "recipe"):
                key = digest_of(f"{kind} {number}".encode())
                actions.UpdateActionResult(
                    pb.UpdateActionResultRequest(instance_name="main", action_digest=key, action_result=result)
                )
            record = team_pb2.Record(kind="preimages", key=f"{number:064x}", value=os.urandom(PREIMAGE))
            team.PutRecords(team_pb2.PutRecordsRequest(instance_name="main", records=[record]))


def load(pid: int, address: str, seconds: float) -> tuple[float, int]:
    """(calls a second, bytes of memory at most)."""
    data = os.urandom(16 << 20)
    digest = digest_of(data)
    resource = f"main/uploads/x/blobs/{digest.hash}/{digest.size_bytes}"
    with grpc.insecure_channel(address) as channel:
        pieces = range(0, len(data), 1 << 20)
        bytestream_pb2_grpc.ByteStreamStub(channel).Write(
            bs.WriteRequest(
                resource_name=resource, write_offset=at, data=data[at : at + (1 << 20)],
                finish_write=at + (1 << 20) >= len(data),
            )
            for at in pieces
        )  # fmt: skip
    stop = threading.Event()
    calls = [0] * CLIENTS

    def client(number: int) -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stream, actions = bytestream_pb2_grpc.ByteStreamStub(channel), services.ActionCacheStub(channel)
            while not stop.is_set():
                if number % 4 == 0:
                    for _ in stream.Read(bs.ReadRequest(resource_name=f"main/blobs/{digest.hash}/{len(data)}")):
                        pass
                else:
                    key = digest_of(f"content {calls[number] % 1000}".encode())
                    actions.GetActionResult(pb.GetActionResultRequest(instance_name="main", action_digest=key))
                calls[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for each in threads:
        each.start()
    peak, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        peak = max(peak, resident(pid))
        time.sleep(0.1)
    stop.set()
    for each in threads:
        each.join()
    return sum(calls) / seconds, peak


def digest_of(data: bytes) -> pb.Digest:
    return pb.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def resident(pid: int) -> int:
    """Bytes that are the process's own: pages of the database file, which the kernel may drop, are left out."""
    fields: dict[str, str] = {}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields[name] = value
    return int(fields["RssAnon"].split()[0]) << 10


def mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def say(what: str, figure: str) -> None:
    print(f"{what:48} {figure}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
