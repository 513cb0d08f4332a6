"""Whatever a network does between a build and the cache, the image is right, and so is what the cache keeps (I7)."""

from __future__ import annotations

import json
import random
import re
import time
from typing import TYPE_CHECKING

import pytest
from faulty import KINDS, FaultyProxy
from team import CacheServer, warnings

if TYPE_CHECKING:
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
SECONDS = 60.0
"""That a build may take with a broken network; without it is a second."""


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
    assert not ran.stderr.strip(), "nothing but the progress"
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


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_one_kind_of_fault(machine: MakeMachine, server: CacheServer, right: dict[str, str], kind: str) -> None:
    assert kind in check(1, (kind,), machine, server, right)
    server.stop()
    assert machine("looks").call("cache", "verify", "--store", server.directory).code == 0


@pytest.mark.slow
def test_many_faults(machine: MakeMachine, server: CacheServer, right: dict[str, str]) -> None:
    done = [fault for seed in range(30) for fault in check(seed, KINDS, machine, server, right)]
    assert set(done) == set(KINDS) - {"pass"}
    server.stop()
    assert machine("looks").call("cache", "verify", "--store", server.directory).code == 0
