"""A limit that is met all the time costs the server little: it counts and cleans up, then rests."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from serving import Refusal
from shelved import Shelved

from cache.server.shelf import both_names

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect, Serve
    from serving import Client, Serving

SECONDS = 12.0
BLOBS = 40_000


def computed(serving: Serving) -> float:
    """Seconds of a core that the server took so far."""
    with open(f"/proc/{serving.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fill(directory: Path, namespace: str, size: int) -> None:
    """Blobs that were all used just now, so that none of them may go."""
    shelved = Shelved(directory)
    for start in range(0, BLOBS, 2000):
        blobs = [both_names(b"%d" % number + bytes(size)) for number in range(start, start + 2000)]
        shelved.shelf.put(namespace, blobs, "test")
    shelved.close()


def meet_the_limit(client: Client, namespace: str) -> int:
    """Nine times a second; how often it was refused."""
    data = os.urandom(900_000)
    refused, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            client.put(data[:-8] + os.urandom(8), namespace)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            refused += 1
        time.sleep(1 / 9)
    return refused


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(
    ("full", "used"), [("q/*=1MB", "other"), ("q/*=5MB", "q/1")], ids=["small beside others", "nothing may go"]
)
def test_a_full_namespace_does_not_keep_the_server_busy(
    serve: Serve, connect: Connect, tmp_path: Path, full: str, used: str
) -> None:
    fill(tmp_path / "served", used, 100)
    serving = serve("--anonymous", "write", "--namespace-limit", full)
    client = connect(serving)
    time.sleep(1)  # what a start costs is another matter
    before = computed(serving)
    assert meet_the_limit(client, "q/1") > 30
    assert computed(serving) - before < 0.6 * SECONDS, "one that does not rest takes all of it"
    with Refusal() as refused:
        client.put(os.urandom(900_000), "q/1")
    assert "q/1' is full" in refused.text


@pytest.mark.slow
def test_room_that_was_made_is_found_while_others_meet_the_limit(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    """Whoever waits as they are told gets in, however often others ask meanwhile, and however large their blob is."""
    shelved = Shelved(tmp_path / "served")
    for _ in range(5):
        shelved.large("q/1", days=9)
    shelved.close()
    serving = serve("--anonymous", "write", "--namespace-limit", "q/*=5MB")
    impatient, patient = connect(serving), connect(serving)
    large = patient.write(os.urandom(4_000_000), "q/1")
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.05):
            try:
                impatient.put(os.urandom(3_900_000), "q/1")
                return
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(40)
    refused_to_the_end = thread.is_alive()
    stop.set()
    thread.join()
    assert not refused_to_the_end
    assert patient.missing(large, namespace="q/1") == []
    assert serving.events("cleaned")[0]["blobs"] >= 4
