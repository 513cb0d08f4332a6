"""Cache mounts that a worker begins with what they held on another one, if the server says so."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import BASE, Cluster, of_files, places, until
from orders import Made, Orders
from serving import make_token

from tests.cache.layers import needs_root
from worker.operation import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster import Joined
    from program import Program

pytestmark = needs_root
FILLED = "mkdir -m 750 /c/d; echo one > /c/d/f; chown 5:6 /c/d/f; chmod 640 /c/d/f; ln -s d/f /c/l; ln /c/d/f /c/h; mkfifo /c/p"
LOOK = "stat -c '%n %F %a %u:%g %h' $(find /c | sort); cat /c/l"
FOUND = b"""/c directory 755 7:8 3
/c/d directory 750 0:0 2
/c/d/f regular file 640 5:6 2
/c/h regular file 640 5:6 2
/c/l symbolic link 777 0:0 1
/c/p fifo 644 0:0 1
one
"""


@pytest.fixture
def sharing(tmp_path: Path, busybox: Path) -> Iterator[Cluster]:
    """w1 and w2, of which w2 is cordoned."""
    made = Cluster(tmp_path, busybox, "--cache-mounts", "shared")
    try:
        made.join("w1", "w2")
        cordon(made, "w2")
        yield made
    finally:
        made.close()


@pytest.fixture
def build(sharing: Cluster, base: Made) -> Iterator[Orders]:
    made = Orders(sharing.server.address, sharing.token)
    made.put(base)
    yield made
    made.close()


def cache(name: str, sharing: str = "shared") -> tuple[Mount, ...]:
    return (Mount("cache", "/c", id=name, sharing=sharing, mode=0o755, uid=7, gid=8),)


def ran(build: Orders, base: Made, script: str, mounts: tuple[Mount, ...]) -> bytes:
    outcome, log = build.end_of(build.run(script, [base.layer], mounts))
    assert outcome.HasField("result"), log
    return log


def cordon(cluster: Cluster, name: str) -> None:
    _admin(cluster).call("fleet", "cordon", name, "--remote", cluster.url).ok()


def uncordon(cluster: Cluster, name: str) -> None:
    _admin(cluster).call("fleet", "uncordon", name, "--remote", cluster.url).ok()


def _admin(cluster: Cluster) -> Program:
    path = cluster.root / "admin"
    if not path.exists():
        path.write_text(make_token(cluster.server.store, "--name", "admin", "--scope", "admin"))
        time.sleep(2)  # the server looks at its tokens once a second
    return cluster.client("admin", path.read_text())


def swap(cluster: Cluster) -> None:
    """w2 takes steps, and w1 none."""
    cordon(cluster, "w1")
    uncordon(cluster, "w2")


def published(worker: Joined, name: str) -> int:
    return worker.said.count(f"published the cache mount '{name}'")


def test_a_worker_begins_with_what_another_one_has(sharing: Cluster, build: Orders, base: Made) -> None:
    w1, w2 = sharing.workers
    kinds = ("shared", "locked", "private")
    for each in kinds:
        ran(build, base, FILLED, cache(each, each))
    for each in kinds:
        until(lambda name=each: published(w1, name) == 1)  # type: ignore[misc]
    swap(sharing)
    assert ran(build, base, "ls /c | wc -l", cache("other")) == b"0\n"
    for each in kinds:
        assert ran(build, base, LOOK, cache(each, each)) == FOUND
        assert f"the cache mount '{each}' begins with" in w2.said
    time.sleep(1)
    assert not any(published(w2, each) for each in kinds), "the server has just that"
    assert ran(build, base, "echo more >> /c/l; cat /c/h", cache("shared")) == b"one\nmore\n", "from now on it is its own"
    assert w2.said.count("the cache mount 'shared' begins") == 1
    assert w2.stop() == 0
    assert [published(w2, each) for each in kinds] == [1, 0, 0], "nor has it what nobody changed"


@pytest.mark.slow
def test_without_a_word_of_the_server_each_worker_has_its_own(tmp_path: Path, busybox: Path, base: Made) -> None:
    own = Cluster(tmp_path, busybox)
    try:
        w1, _ = own.join("w1", "w2")
        cordon(own, "w2")
        build = Orders(own.server.address, own.token)
        build.put(base)
        ran(build, base, FILLED, cache("deps"))
        assert w1.stop() == 0, "also what it would have published at its end"
        uncordon(own, "w2")
        assert ran(build, base, "ls /c | wc -l", cache("deps")) == b"0\n"
        assert "published" not in w1.said
        build.close()
    finally:
        own.close()


def large_ones(store: Path) -> list[Path]:
    return [path for path, status in of_files(store / "blobs", Path.stat).items() if status.st_size > 2_900_000]


@pytest.mark.slow
def test_a_build_finds_what_its_last_step_left_elsewhere_also_before_from(sharing: Cluster) -> None:
    w1, _ = sharing.workers
    client = sharing.client()
    seed = f"{BASE} AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM base\n"
    step = "RUN --mount=type=cache,id=deps,target=/c,from=seed,source=/s"
    context = client.project(f"{seed}{step} cat /c/f && echo later >> /c/f\n")
    assert sharing.build(client, context, "--local-slots", "0").ok().output("2.1") == ["seed"]
    until(lambda: published(w1, "deps") == 1)
    swap(sharing)
    (context / "Dockerfile").write_text(f"{seed}{step} cat /c/f\n")
    there = sharing.build(client, context, "--local-slots", "0").ok()
    assert places(there) == {"2.1": "w2"}
    assert there.output("2.1") == ["seed", "later"]


@pytest.mark.slow
def test_a_snapshot_that_is_damaged_costs_time_and_nothing_else(sharing: Cluster, build: Orders, base: Made) -> None:
    w1, w2 = sharing.workers
    ran(build, base, "head -c 3000000 /dev/urandom > /c/large", cache("deps"))
    until(lambda: published(w1, "deps") == 1)
    blobs = large_ones(sharing.server.store)
    assert blobs
    until(lambda: not large_ones(w1.store))
    for path in blobs:
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(1_500_000)
            file.write(b"damaged!")
    swap(sharing)
    assert ran(build, base, "stat -c '%a %u:%g' /c; ls /c | wc -l", cache("deps")) == b"755 7:8\n0\n"
    assert "the cache mount 'deps' begins without its snapshot: " in w2.said


@pytest.mark.slow
def test_what_a_step_uses_is_published_once_nobody_does(sharing: Cluster, build: Orders, base: Made) -> None:
    w1, w2 = sharing.workers
    long = build.run("sleep 12; echo long >> /c/f", [base.layer], cache("deps"))
    build.take("started", long)
    time.sleep(1)
    ran(build, base, "echo short >> /c/f", cache("deps"))
    time.sleep(0.5)
    assert published(w1, "deps") == 0
    assert build.end_of(long)[0].HasField("result")
    until(lambda: published(w1, "deps") == 1)
    swap(sharing)
    assert ran(build, base, "cat /c/f", cache("deps")) == b"short\nlong\n"
    assert "begins with" in w2.said


@pytest.mark.slow
def test_the_last_state_is_published_when_a_worker_ends_and_outlives_the_server(
    sharing: Cluster, build: Orders, base: Made
) -> None:
    w1, _ = sharing.workers
    ran(build, base, "echo one >> /c/f", cache("deps"))
    until(lambda: published(w1, "deps") == 1)
    ran(build, base, "echo two >> /c/f", cache("deps"))
    ran(build, base, "cat /c/f", cache("deps"))
    time.sleep(0.5)
    assert published(w1, "deps") == 1, "not with every step"
    assert w1.stop(signal.SIGTERM) == 0
    assert published(w1, "deps") == 2
    sharing.restart_server()
    sharing.wait(lambda: "w2" in {each["name"] for each in sharing.state()["workers"]})
    uncordon(sharing, "w2")
    again = Orders(sharing.server.address, sharing.token)
    assert ran(again, base, "cat /c/f", cache("deps")) == b"one\ntwo\n"
    again.close()


@pytest.mark.slow
def test_a_worker_that_ends_at_once_ends_what_it_has_begun_to_publish(sharing: Cluster, build: Orders, base: Made) -> None:
    w1, _ = sharing.workers
    ran(build, base, "head -c 150000000 /dev/urandom > /c/f", cache("deps"))
    assert w1.stop(signal.SIGTERM) == 0
    assert published(w1, "deps") == 1


@pytest.mark.slow
def test_a_worker_that_starts_again_gets_the_steps_whose_cache_it_has(tmp_path: Path, busybox: Path, base: Made) -> None:
    own = Cluster(tmp_path, busybox)
    try:
        token = make_token(own.server.store, "--name", "team", "--scope", "read,write,execute", "--namespace", "team/*")
        own.worker_token = make_token(own.server.store, "--name", "all", "--scope", "read,execute", "--namespace", "**")
        time.sleep(2)  # the server looks at its tokens once a second
        w1, w2 = own.join("w1", "w2")
        build, other = (Orders(own.server.address, token, name) for name in ("team/a", "team/b"))
        for each, away in ((build, "w1"), (other, "w2")):
            each.put(base)
            cordon(own, away)
            ran(each, base, "echo here > /c/f", cache("deps"))
            uncordon(own, away)
        for worker in (w1, w2):
            assert worker.stop() == 0
        own.join("w1")
        own.join("w2")
        for each, name in ((build, "w2"), (other, "w1")):
            key = each.run("cat /c/f", [base.layer], cache("deps"))
            assert each.take("started", key).worker == name
            assert each.end_of(key)[1] == b"here\n"
            each.close()
    finally:
        own.close()
