"""Whatever a network does between a build and the cache, the image is right, and so is what the cache keeps (I7)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from faulty import KINDS, FaultyProxy
from team import CacheServer, warnings

from cache.server.refusal import MIN_FREE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import MakeMachine
    from team import Machine

STEPS = """
FROM busybox AS tools
COPY tool /tool
RUN cat /tool > /made && head -c 300000 /dev/zero >> /made && echo the tool is made
FROM busybox
COPY large /large
RUN wc -c < /large > /size
COPY --from=tools /made /made
COPY source /source
RUN cat /source /size > /final && echo the last step
"""
DATA = random.Random(7).randbytes(3 << 20)
SECONDS = 90.0
"""That a build may take with a broken network: its end waits 60 s for what is being published; otherwise a second."""


def files(source: str) -> dict[str, str | bytes]:
    return {"tool": "a tool\n", "large": DATA, "source": source}


def build(machine: Machine, source: str, *, alone: bool = False) -> tuple[str, list[str], list[str]]:
    """(digest of the image with all its bytes, what ran, warnings). The build must succeed, and quietly."""
    out = machine.root / f"out-{source}"
    started = time.monotonic()
    # The same timestamps however often a step runs: what is built again is the same image.
    epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"]
    call = machine.alone if alone else machine.build
    ran = call(machine.project(STEPS, files(source)), *epoch, "-o", f"type=oci,dest={out},tar=false").ok()
    assert time.monotonic() - started < SECONDS
    assert "Traceback" not in ran.stderr
    digest = json.loads((out / "index.json").read_text())["manifests"][0]["digest"]
    return digest, ran.executed, warnings(ran)


def assert_few(told: list[str]) -> None:
    """One warning of the network; and each blob that came as other bytes is told by its digest, once."""
    wrong = [text for text in told if re.search(r"[0-9a-f]{64}", text)]
    assert len({re.findall(r"[0-9a-f]{64}", text)[0] for text in wrong}) == len(wrong), told
    assert len(told) - len(wrong) <= 1, told


@pytest.fixture
def right(tmp_path: Path, machine: MakeMachine, server: CacheServer) -> dict[str, str]:
    """Digests of the images as a build without any remote makes them; the first source's is published."""
    alone, first = machine("alone"), machine("first")
    digests = {source: build(alone, source, alone=True)[0] for source in ("x", "y")}
    assert build(first, "x")[0] == digests["x"]
    return digests


def check(seed: int, kinds: tuple[str, ...], machine: MakeMachine, server: CacheServer, right: dict[str, str]) -> list[str]:
    """What happened to a machine that finds some of it in the cache and publishes the rest, and to one after it."""
    proxy = FaultyProxy(server.port, seed, *kinds)
    try:
        broken = machine(f"broken-{seed}", remote=proxy.url)
        for source in ("x", "y"):
            digest, _, told = build(broken, source)
            assert digest == right[source]
            assert_few(told)
    finally:
        proxy.close()
    after = machine(f"after-{seed}")
    for source in ("x", "y"):
        digest, _, told = build(after, source)
        assert digest == right[source]
        assert not told, "what the broken connection left in the server is whole"
    return proxy.done


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[:-1])
def test_one_kind_of_fault(machine: MakeMachine, server: CacheServer, right: dict[str, str], kind: str) -> None:
    assert kind in check(1, (kind,), machine, server, right)
    server.stop()
    assert machine("looks").call("cache", "verify", "--store", server.directory).code == 0


@pytest.mark.slow
def test_a_peer_that_speaks_nonsense_leaves_no_line_of_grpcs_own(machine: MakeMachine) -> None:
    header = b"\x02\x03XYZ\x88"  # a method of requests, in an answer
    answer = b"\0\0\0\4\0\0\0\0\0" + len(header).to_bytes(3, "big") + b"\x01\x04\0\0\0\x01" + header

    def speak() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1 << 16)
                    peer.sendall(answer)
                    peer.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=speak, daemon=True).start()
        alone = machine("alone", remote=f"grpc://127.0.0.1:{listener.getsockname()[1]}")
        ran = alone.build(alone.project("FROM busybox\nCOPY source /source\n", {"source": "x"})).ok()
        listener.shutdown(socket.SHUT_RDWR)
    assert len(warnings(ran)) == 1
    assert not ran.stderr.strip()


@pytest.mark.slow
def test_many_faults(machine: MakeMachine, server: CacheServer, right: dict[str, str]) -> None:
    done = [fault for seed in range(30) for fault in check(seed, KINDS, machine, server, right)]
    assert set(done) == set(KINDS) - {"pass"}
    server.stop()
    assert machine("looks").call("cache", "verify", "--store", server.directory).code == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MIN_FREE + (2 << 20)}", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
def test_a_server_whose_disk_is_full(machine: MakeMachine, small_disk: Path) -> None:
    """One warning, the right image; and once there is room the next build publishes what was left over."""
    server = CacheServer(small_disk / "served")
    try:
        digest, _, _ = build(machine("alone"), "x", alone=True)
        first, second, third = (machine(name, remote=server.url) for name in ("first", "second", "third"))
        found, _, told = build(first, "x")
        assert found == digest
        assert len(told) == 1
        assert "full" in told[0]
        found, _, told = build(second, "x")
        assert found == digest
        assert len(told) <= 1
        subprocess.run(["mount", "-o", f"remount,size={3 * MIN_FREE}", small_disk], check=True)
        build(first, "x")
        found, ran, told = build(third, "x")
        assert (found, ran, told) == (digest, [], [])
    finally:
        server.stop()
    assert first.call("cache", "verify", "--store", server.directory).code == 0
