"""Two machines at the ends of slow wires: what one built the other one need not, and a change moves what changed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.networks import DELAY, RATE, SERVER, Networks
from bench.team import Team, image_digest

if TYPE_CHECKING:
    from pathlib import Path

LISTEN = f"import socket; s = socket.create_server(('{SERVER}', 99)); print('ready', flush=True); c, _ = s.accept()\n"
ECHO = "while d := c.recv(1 << 16): c.sendall(d)"
CONNECT = f"import socket, time; s = socket.create_connection(('{SERVER}', 99)); s.setsockopt(6, 1, 1); t = time.monotonic()\n"
COUNT = "n = 0\nwhile d := c.recv(1 << 20): n += len(d)\nc.sendall(b'%d' % n)"

DOCKERFILE = """
FROM busybox
COPY large /large
RUN wc -c < /large > /size
COPY source /source
RUN cat /source > /made && sleep 0.2
"""


def measure(networks: Networks, server: str, client: str) -> float:
    """What the client printed."""
    listener = subprocess.Popen([*networks.inside("server"), sys.executable, "-c", LISTEN + server], stdout=subprocess.PIPE)
    assert listener.stdout is not None
    listener.stdout.readline()
    done = subprocess.run([*networks.inside("a"), sys.executable, "-c", CONNECT + client], capture_output=True, check=True)
    listener.communicate(timeout=20)
    return float(done.stdout)


@pytest.mark.alone
def test_the_wire_has_its_delay_and_its_rate() -> None:
    with Networks("a", "b") as networks:
        ping = "p = lambda: (time.monotonic(), s.sendall(b'x'), s.recv(1), time.monotonic())\n"
        ping += "print(min(end - begin for begin, _, _, end in (p() for _ in range(10))))"
        assert 2 * DELAY <= measure(networks, ECHO, ping) < 2 * DELAY + 0.1
        size = 4 << 20
        send = f"s.sendall(bytes({size})); s.shutdown(1); assert int(s.recv(99)) == {size}; print(time.monotonic() - t)"
        before = networks.moved("a")
        assert measure(networks, COUNT, send) > size * 8 / RATE
        assert networks.moved("a").since(before).sent > size
        assert networks.moved("b").sent < 10_000, "each machine has a wire of its own"
        name = networks.namespace("a")
    assert name not in os.listdir("/run/netns")


@pytest.mark.slow
def test_the_second_machine_moves_what_it_lacks(tmp_path: Path, busybox: Path) -> None:
    data = random.Random(1).randbytes(20 << 20)
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text(DOCKERFILE)
    (project / "large").write_bytes(data)
    (project / "source").write_text("one\n")
    base = ["--build-context", f"busybox={busybox}", project]
    with Team(tmp_path, "a", "b") as team:
        alone = team.build("a", "a", *base, "-o", f"type=oci,dest={tmp_path / 'first'},tar=false")
        assert len(alone.cached) == 0
        found = team.build("b", "b", *base, "-t", "app")
        assert found.ran == []
        assert found.blobs == (0, 0)
        assert sum(found.wire) < 100_000, "no layer, and little else"

        # The image in full: all its bytes, once.
        full = team.build("b", "b", *base, "-o", f"type=oci,dest={tmp_path / 'second'},tar=false")
        assert full.ran == []
        assert full.wire.received > len(data)
        assert image_digest(tmp_path / "second") == image_digest(tmp_path / "first")

        (project / "source").write_text("two\n")
        changed = team.build("b", "b", *base, "-t", "app")
        assert len(changed.ran) == 2, "the COPY of the source and what reads it"
        assert changed.blobs.received == 0
        assert sum(changed.wire) < 100_000

        (project / "large").write_bytes(data[: 9 << 20] + b"a few other bytes" + data[9 << 20 :])
        other = team.build("b", "b", *base, "-t", "app")
        assert len(other.ran) >= 2
        assert other.blobs.received == 0
        assert sum(other.wire) < 0.1 * len(data), "some chunks"
        taken = team.build("a", "a", *base, "-o", f"type=oci,dest={tmp_path / 'later'},tar=false")
        assert taken.ran == []
        assert sum(taken.wire) < 0.1 * len(data)
        for each in (alone, found, full, changed, other, taken):
            assert not each.warnings
            assert "Traceback" not in each.errors
        for store in (team.store("a"), team.store("b")):
            assert team.call("b", "x", "cache", "verify", "--store", store).returncode == 0
