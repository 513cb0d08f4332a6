"""Proxy variables of a build: the command sees them, and the server does not."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import BASE, Cluster, Joined, of_files, places
from scheduled import Scheduled, key
from tap import Tap

from tests.cache.layers import needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

K = key(1)
PASSWORD = "pass-" + os.urandom(8).hex()
PROXY = f"http://me:{PASSWORD}@proxy:3128"


@pytest.fixture
def tapped(tmp_path: Path, busybox: Path) -> Iterator[tuple[Cluster, Tap]]:
    """One worker, which reaches the server by a wire that is listened to."""
    made = Cluster(tmp_path, busybox)
    tap = Tap(made.server.address)
    try:
        worker = Joined(made.root, "w1", f"grpc://{tap.address}", made.worker_token, ("--slots", "2"))
        made.workers.append(worker)
        made.wait(lambda: bool(made.state()["workers"]), [worker])
        yield made, tap
    finally:
        made.close()
        tap.close()


@needs_root
def test_a_command_sees_its_proxies_and_nobody_between_does(tapped: tuple[Cluster, Tap], tmp_path: Path) -> None:
    cluster, tap = tapped
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN printf %s $http_proxy$NO_PROXY | sha256sum > /sum\n")
    target = client.root / "out"
    options = ("--build-arg", f"http_proxy={PROXY}", "--build-arg", "NO_PROXY=local", "--local-slots", "0")
    ran = client.build(context, "--remote", f"grpc://{tap.address}", *options, "-o", f"type=local,dest={target}").ok()
    assert places(ran) == {"1.1": "w1"}, "though there is no secret"
    assert (target / "sum").read_text().split()[0] == hashlib.sha256(f"{PROXY}local".encode()).hexdigest()
    assert b"sha256sum" in tap.heard, "it is listened to"
    assert PASSWORD.encode() not in tap.heard
    for place in (cluster.workers[0].store, cluster.server.store):
        holding = of_files(place, lambda path: PASSWORD.encode() in path.read_bytes())
        assert not [path for path, held in holding.items() if held]
    assert PASSWORD not in cluster.workers[0].said


@needs_root
@pytest.mark.slow
def test_two_builds_that_want_the_same_are_both_content(tapped: tuple[Cluster, Tap]) -> None:
    cluster, _ = tapped
    text = f"{BASE}\nRUN sleep 2; test -n \"$http_proxy\"; echo made > /made\n"
    options = ("--build-arg", f"http_proxy={PROXY}", "--local-slots", "0", "--progress", "plain")
    running = []
    for name in ("one", "two"):
        client = cluster.client(name)
        command = client.command("build", client.project(text), *client.base(), "--remote", cluster.url, *options)
        running.append(subprocess.Popen(command, env=client.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    for process in running:
        said = process.communicate(timeout=110)[0]
        assert process.returncode == 0, said
    assert len(cluster.server.events("lease given")) == 1


@needs_root
@pytest.mark.slow
def test_whoever_gets_the_step_next_is_given_them_too(tapped: tuple[Cluster, Tap]) -> None:
    cluster, _ = tapped
    cluster.join("w2")
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN sleep 20; printf %s $http_proxy | sha256sum\n")
    options = ("--build-arg", f"http_proxy={PROXY}", "--local-slots", "0", "--progress", "plain")
    command = client.command("build", context, *client.base(), "--remote", cluster.url, *options)
    process = subprocess.Popen(command, env=client.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cluster.wait(lambda: bool(cluster.state()["running"]))
    first = cluster.state()["running"][0]["worker"]
    cluster.restart_server()
    cluster.wait(lambda: len(cluster.state()["workers"]) == 2)
    next(each for each in cluster.workers if each.name == first).stop(signal.SIGINT)
    said = process.communicate(timeout=110)[0]
    assert process.returncode == 0, said
    assert hashlib.sha256(PROXY.encode()).hexdigest() in said
    assert f"on {'w2' if first == 'w1' else 'w1'}\n" in said


def test_a_build_that_has_proxies_is_the_one_that_is_asked_for_them(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    busy, plain, behind = fleet.build(), fleet.build("bob"), fleet.build()
    busy.execute(key(5))
    first = worker.lease()
    plain.execute(K)
    plain.take("queued")
    behind.execute(K, sealed_proxies=True)
    behind.take("queued")
    worker.done(first)
    lease = worker.lease()
    assert lease.action.sealed_proxies
    for build, data in ((plain, b"p"), (behind, b"b")):
        build.take("started")
        build.send(sealed={"lease": lease.lease, "channel": "secrets", "data": data})
    assert worker.take("sealed").data == b"b"
    assert worker.none("sealed")
