"""A server that is killed while many write, and one whose disk is full: what it acknowledged it has, and it goes on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from serving import Client, Refusal, Serving, call, digest_of

from cache.server.refusal import MIN_FREE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from buildgraph.v1 import remote_execution_pb2 as pb
    from conftest import Serve

WRITERS = 32
ROOM = 8 << 20
"""Bytes that the small disk has beside what a server keeps free."""


class Writer:
    """Puts blobs and results, one after the other, until its server is gone. Everything follows from the seed."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.tried = 0
        self.had: dict[int, pb.Digest] = {}
        """Number → digest of blobs that the server acknowledged."""
        self.published: dict[int, pb.Digest] = {}
        """Number of the blob that a result names → its action."""

    def data(self, number: int) -> bytes:
        """Small ones go into records, the larger ones are files and come as streams."""
        dice = random.Random(f"{self.seed} {number}")
        return dice.randbytes(dice.choice((100, 5_000, 300_000)))

    def name(self, number: int) -> str:
        return f"{self.seed} action {number}"

    def run(self, address: str) -> None:
        client = Client(address)
        try:
            while True:
                number, self.tried = self.tried, self.tried + 1
                data = self.data(number)
                self.had[number] = client.write(data) if len(data) > 100_000 else client.put(data)
                self.published[number] = client.publish(self.name(number), self.had[number])
        except grpc.RpcError:
            pass
        finally:
            client.close()

    def check(self, client: Client) -> None:
        """What was acknowledged is there; of all that was tried nothing is there with other bytes."""
        every = {number: self.data(number) for number in range(self.tried)}
        missing = {digest.hash for digest in client.missing(*map(digest_of, every.values()))}
        for number, data in every.items():
            if digest_of(data).hash in missing:
                assert number not in self.had, f"{self.seed}: an acknowledged blob is lost"
            else:
                assert client.read(digest_of(data)) == data
            result = client.result(digest_of(self.name(number).encode()))
            if result is None:
                assert number not in self.published, f"{self.seed}: an acknowledged result is lost"
            else:
                assert result.output_files[0].digest == digest_of(data)


def kill_under_writers(serving: Serving, seed: str) -> list[Writer]:
    """What each of them did until the server was killed."""
    writers = [Writer(f"{seed}-{number}") for number in range(WRITERS)]
    threads = [threading.Thread(target=writer.run, args=(serving.address,)) for writer in writers]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while time.monotonic() < until and not any(writer.published for writer in writers):
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    os.kill(serving.process.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    serving.end()
    return writers


def kill_rounds(serve: Serve, rounds: int) -> None:
    every: list[Writer] = []
    serving = serve("--anonymous", "write")
    for number in range(rounds):
        every += kill_under_writers(serving, f"round {number}")
        serving = serve("--anonymous", "write", store=serving.store)  # as it is: nothing is repaired before
        client = Client(serving.address)
        try:
            for writer in every:
                writer.check(client)
        finally:
            client.close()
        assert not serving.events("error")
    assert sum(len(writer.published) for writer in every) > rounds
    assert serving.stop()[0] == 0
    verified = call("cache", "verify", "--store", serving.store)
    assert verified.returncode == 0, verified.stdout
    assert "all is well" in verified.stdout


def test_a_kill_under_many_writers_loses_nothing(serve: Serve) -> None:
    kill_rounds(serve, 1)


@pytest.mark.slow
def test_many_kills_lose_nothing(serve: Serve) -> None:
    kill_rounds(serve, 12)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MIN_FREE + ROOM}", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_said_and_nothing_breaks(serve: Serve, small_disk: Path) -> None:
    serving = serve("--anonymous", "write", "--max-used-space", "1TB", store=small_disk / "served")
    client = Client(serving.address)
    with contextlib.closing(client):
        kept: list[bytes] = []
        with Refusal() as refused:
            for seed in range(100):
                data = random.Random(seed).randbytes(1 << 20)
                client.write(data)
                kept.append(data)
        assert kept
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "full" in refused.text, refused.text
        with Refusal() as refused:
            client.put(random.Random(-1).randbytes(2 << 20))  # tmpfs counts its free pages but roughly
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        for data in kept:
            assert client.read(digest_of(data)) == data
        subprocess.run(["mount", "-o", f"remount,size={2 * MIN_FREE}", small_disk], check=True)
        client.write(random.Random(-2).randbytes(1 << 20))
    assert serving.stop()[0] == 0
    assert call("cache", "verify", "--store", serving.store).returncode == 0
