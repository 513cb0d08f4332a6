"""Uploads on a slow wire: whoever is told to end does not wait for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import BASE, Cluster, Joined, until
from orders import Made, Orders
from tap import Tap

from tests.cache.layers import needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE = 1 << 20
"""Bytes a second."""
LARGE = 60 << 20


@pytest.fixture
def wire(own: Cluster) -> Iterator[Tap]:
    """Slow."""
    made = Tap(own.server.address)
    made.rate = RATE
    yield made
    made.close()


def sends(wire: Tap) -> None:
    """Wait until the upload has begun."""
    before = len(wire.heard)
    until(lambda: len(wire.heard) > before + (1 << 20))


@needs_root
def test_an_interrupted_build_does_not_wait_for_the_inputs_that_it_sends(own: Cluster, wire: Tap) -> None:
    own.join("w1")
    client = own.client()
    files: dict[str, str | bytes] = {"large": os.urandom(LARGE)}
    context = client.project(f"{BASE}\nRUN --mount=type=bind,source=large,target=/l wc -c /l\n", files)
    command = client.command("build", context, *client.base(), "--remote", f"grpc://{wire.address}", "--progress", "plain")
    process = subprocess.Popen(command, env=client.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sends(wire)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert time.monotonic() - began < 40, said
    assert "Traceback" not in said


@pytest.mark.slow
@needs_root
def test_an_interrupted_worker_gives_back_at_once_what_it_publishes(own: Cluster, wire: Tap, base: Made) -> None:
    worker = Joined(own.root, "w1", f"grpc://{wire.address}", own.worker_token, ("--slots", "1"))
    own.workers.append(worker)
    own.wait(lambda: bool(own.state()["workers"]), [worker])
    build = Orders(own.server.address, own.token)
    build.put(base)
    key = build.run(f"head -c {LARGE} /dev/urandom > /large", [base.layer])
    build.take("started", key)
    sends(wire)
    began = time.monotonic()
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(90) == 130
    assert time.monotonic() - began < 40
    again = build.take("queued", key)
    while not again.again:
        again = build.take("queued", key)
    assert again.reason == "w1 gave it back: the worker was stopped"
    assert "Traceback" not in worker.said
    build.close()
