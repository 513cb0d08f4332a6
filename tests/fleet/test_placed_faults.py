"""Builds whose fleet changes, dies or comes back while they run."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import BASE, Cluster, digest, places

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster import Joined
    from program import Program, Ran

pytestmark = pytest.mark.slow
EPOCH = ("--build-arg", "SOURCE_DATE_EPOCH=1700000000")
HERE = ("--local-slots", "0")


def during(cluster: Cluster, client: Program, context: Path, *arguments: str, do: Callable[[], None]) -> Ran:
    """Build, and do something once a command of it runs on a worker."""
    found: list[Ran] = []
    thread = threading.Thread(target=lambda: found.append(cluster.build(client, context, *arguments)))
    thread.start()
    cluster.wait(lambda: bool(cluster.state()["running"]))
    time.sleep(0.5)
    do()
    thread.join(150)
    assert found, "the build hangs"
    return found[0]


class Victim:
    """The worker that runs something, once it was dealt with, and the one that does not."""

    def __init__(self, cluster: Cluster, deal: Callable[[Joined], object]) -> None:
        self._cluster = cluster
        self._deal = deal
        self.other = ""

    def __call__(self) -> None:
        name = self._cluster.state()["running"][0]["worker"]
        self.other = next(each.name for each in self._cluster.workers if each.name != name)
        self._deal(next(each for each in self._cluster.workers if each.name == name))


def test_a_worker_that_dies_is_replaced(cluster: Cluster) -> None:
    cluster.join("w1", "w2", slots=1)
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN echo begun && sleep 15 && echo done > /done\n")
    victim = Victim(cluster, lambda worker: worker.process.kill())
    ran = during(cluster, client, context, *EPOCH, *HERE, do=victim).ok()
    assert places(ran) == {"1.1": victim.other}
    alone = cluster.client("alone")
    assert digest(ran) == digest(alone.build(alone.project((context / "Dockerfile").read_text()), *EPOCH).ok())


def test_a_server_that_starts_again_costs_nothing_but_time(cluster: Cluster) -> None:
    cluster.join("w1", slots=1)
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN echo begun && sleep 12 && echo done && echo $RANDOM > /r\nRUN cat /r\n")
    ran = during(cluster, client, context, *HERE, do=cluster.restart_server).ok()
    assert ran.output("1.1")[-1] == "done"
    assert places(ran) == {"1.1": "w1", "1.2": "w1"}
    assert cluster.workers[0].said.count("RUN echo begun") <= 3, "it was given once: begun, ended"


def test_a_server_that_is_gone_leaves_the_build_to_itself(cluster: Cluster) -> None:
    cluster.join("w1", slots=1)
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN echo first > /1\nRUN echo begun && sleep 12 && cat /1\n")
    began = time.monotonic()
    ran = during(cluster, client, context, do=cluster.server.end).ok()
    assert 55 < time.monotonic() - began < 145
    assert places(ran)["1.2"] == "this machine: the scheduler is out of reach"
    assert ran.output("1.2")[-1] == "first"


def test_a_server_that_is_gone_fails_a_build_that_may_run_nothing_here(cluster: Cluster) -> None:
    cluster.join("w1", slots=1)
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN echo begun && sleep 12\n")
    ran = during(cluster, client, context, *HERE, do=cluster.server.end).failed(5)
    assert "the scheduler is out of reach" in ran.stderr
    assert "--local-slots 0" in ran.stderr


def test_two_builds_of_the_same_run_each_command_once(cluster: Cluster) -> None:
    cluster.join("w1", "w2", slots=2)
    one, two = cluster.client("one"), cluster.client("two")
    dockerfile = f"{BASE}\nWORKDIR /made\nCOPY f .\nRUN echo begun && sleep 10 && od -x -N 8 /dev/urandom | tee /r\n"
    contexts = [each.project(dockerfile, {"f": "f"}) for each in (one, two)]
    os.utime(contexts[1] / "f", (1_600_000_000, 1_600_000_000))  # as another checkout has it: no key counts that
    found: list[Ran] = []
    threads = [threading.Thread(target=lambda pair=pair: found.append(cluster.build(*pair, *HERE))) for pair in zip((one, two), contexts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(110)
    first, second = (each.ok().output("1.3") for each in found)
    assert first[0] == second[0] == "begun"
    assert first == second, "both see the log of the one run from its start"


def test_a_worker_that_is_stopped_gives_back_what_it_has(cluster: Cluster) -> None:
    cluster.join("w1", "w2", slots=1)
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN echo begun && sleep 15 && echo done\n")
    codes: list[int] = []
    victim = Victim(cluster, lambda worker: codes.append(worker.stop(signal.SIGINT)))
    ran = during(cluster, client, context, *HERE, do=victim).ok()
    assert codes == [130]
    assert places(ran) == {"1.1": victim.other}
    assert ran.output("1.1")[-2:] == ["begun", "done"]


def test_a_build_that_runs_nothing_here_waits_for_workers_that_are_coming(cluster: Cluster) -> None:
    client = cluster.client()
    context = client.project(f"{BASE}\nRUN echo late\n")
    joining = threading.Timer(3, lambda: cluster.join("w1"))
    joining.start()
    ran = cluster.build(client, context, *HERE).ok()
    joining.join()
    assert places(ran) == {"1.1": "w1"}
