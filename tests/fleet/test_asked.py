"""What a build asks of the fleet's workers: labels, memory, and that it trusts them."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import BASE, Cluster, places, warnings
from serving import make_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Program, Ran

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="workers of these tests mount as root")
THERE = ("--local-slots", "0")
RANDOM = "head -c 8 /dev/urandom | od -An -tx8"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Cluster]:
    """w1 is small and plain; w2 has labels."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), busybox)
    try:
        made.join("w1", slots=4, arguments=("--memory", "1GB"))
        made.join("w2", slots=4, arguments=("--memory", "2GB", "--label", "gpu=a100", "--label", "zone=b"))
        yield made
    finally:
        made.close()


def trust(cluster: Cluster, client: Program, *names: str) -> None:
    """From now on this machine's builds trust these workers alone."""
    keys = {each["name"]: each["key"] for each in cluster.state()["workers"]}
    listed = ", ".join(f'"{keys[name]}"' for name in names)
    (client.root / "buildgraph.toml").write_text(f"[remote]\ntrusted-workers = [{listed}]\n")


def careful_build(cluster: Cluster, client: Program, dockerfile: str, *arguments: str) -> Ran:
    return cluster.build(client, client.project(dockerfile), *arguments, cwd=client.root)


def with_old_file(client: Program, dockerfile: str) -> Path:
    """A context with a file of the same time on every machine."""
    context = client.project(dockerfile, {"f": "cached"})
    os.utime(context / "f", (1e9, 1e9))
    return context


def done(cluster: Cluster) -> dict[str, int]:
    """Results of each worker."""
    return {each["name"]: each["done"] for each in cluster.state()["workers"]}


def test_a_step_goes_where_its_label_is_and_a_large_one_where_the_memory_is(cluster: Cluster, client: Program) -> None:
    steps = "".join(f"FROM base AS s{at}\n# buildgraph: label=gpu=a100\nRUN echo {at} > /x\n" for at in range(3))
    steps += "FROM base AS large\n# buildgraph: memory=1.5GB\nRUN echo large > /x\n"
    context = client.project(f"{BASE}\n{steps}FROM base\n" + "".join(f"COPY --from={name} /x /{name}\n" for name in ("s0", "s1", "s2", "large")))
    ran = cluster.build(client, context, *THERE).ok()
    assert places(ran) == {"s0.1": "w2", "s1.1": "w2", "s2.1": "w2", "large.1": "w2"}


def test_a_wish_is_in_no_key(cluster: Cluster, client: Program) -> None:
    text = f"{BASE}\nRUN echo of-no-key > /x\n"
    cluster.build(client, client.project(text), *THERE).ok()
    changed = client.project(text.replace("RUN", "# buildgraph: memory=99GB label=planet=mars\nRUN"))
    assert cluster.build(client, changed).ok().executed == []


@pytest.mark.slow
def test_what_no_worker_has_is_made_here_and_said(cluster: Cluster, client: Program) -> None:
    context = client.project(
        f"{BASE}\n# buildgraph: label=gpu=h100\nRUN echo no-such-label\n# buildgraph: memory=64GB\nRUN echo no-such-memory\n"
    )
    assert places(cluster.build(client, context).ok()) == {
        "1.1": "this machine: no worker has the labels gpu=h100", "1.2": "this machine: no worker has 68.7 GB of memory",
    }  # fmt: skip


def test_without_a_fleet_a_wish_is_no_requirement(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\n# buildgraph: label=gpu=a100 memory=1TB\nRUN echo alone\n")
    ran = client.build(context).ok()
    assert (ran.output("1.1"), places(ran)) == (["alone"], {})


def test_all_steps_of_a_build_go_to_workers_with_its_label(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN echo all > /a\n# buildgraph: label=zone=nowhere\nRUN echo all > /b\n")
    ran = cluster.build(client, context, *THERE, "--worker-label", "zone=b", "--worker-label", "gpu=a100").ok()
    assert places(ran) == {"1.1": "w2", "1.2": "w2"}
    assert "'zone' is not of the form NAME=VALUE" in cluster.build(client, context, "--worker-label", "zone").failed(2).stderr


def test_steps_go_only_to_workers_that_the_build_trusts(cluster: Cluster, client: Program) -> None:
    trust(cluster, client, "w2")
    steps = "".join(f"FROM base AS s{at}\nRUN echo trusted {at} > /x\n" for at in range(6))
    ran = careful_build(cluster, client, f"{BASE}\n{steps}FROM base\n" + "".join(f"COPY --from=s{at} /x /{at}\n" for at in range(6)), *THERE)
    assert places(ran.ok()) == {f"s{at}.1": "w2" for at in range(6)}
    assert warnings(ran) == []


def test_without_a_trusted_worker_steps_run_here(cluster: Cluster, client: Program) -> None:
    (client.root / "buildgraph.toml").write_text('[remote]\ntrusted-workers = ["ed25519:' + "B" * 43 + '"]\n')
    ran = careful_build(cluster, client, f"{BASE}\nRUN echo of nobody\n").ok()
    assert places(ran) == {"1.1": "this machine: no worker that the build trusts can take it"}
    failed = careful_build(cluster, client, f"{BASE}\nRUN echo of nobody, again\n", *THERE).failed(5)
    assert "no worker that the build trusts can take it" in failed.stderr


def test_a_cached_result_of_a_trusted_worker_is_used_and_any_other_is_not(cluster: Cluster, client: Program) -> None:
    dockerfile = f"{BASE}\nCOPY f /f\nRUN {RANDOM} > /r\nRUN cat /r /r\n"

    def made_by(machine: Program, *arguments: str) -> tuple[Ran, str]:
        """A build, and what its random step made up."""
        out = machine.root / "out"
        arguments = (*THERE, *arguments, "-o", str(out))
        ran = cluster.build(machine, with_old_file(machine, dockerfile), *arguments, cwd=machine.root).ok()
        return ran, (out / "r").read_text()

    _, random = made_by(client, "--worker-label", "zone=b")
    before = done(cluster)
    careful = cluster.client("careful")
    trust(cluster, careful, "w2")
    used, same = made_by(careful)
    assert done(cluster) == before, "nothing ran again"
    assert places(used) == {}
    assert {"1.2", "1.3"} <= set(used.cached)
    assert same == random

    other = cluster.client("trusts-another")
    trust(cluster, other, "w1")
    again, another = made_by(other)
    assert set(places(again).values()) == {"w1"}
    assert another != random


def test_what_a_client_published_is_not_believed_now_nor_if_an_earlier_build_was_told(cluster: Cluster, client: Program) -> None:
    token = make_token(cluster.root / "served", "--name", "publisher", "--scope", "read,write")
    publisher = cluster.client("publisher", token)
    dockerfile = f"{BASE}\nRUN {RANDOM} | tee /r\nRUN cat /r /r\n"
    said = cluster.build(publisher, publisher.project(dockerfile)).ok().output("1.2")
    assert cluster.build(client, client.project(dockerfile)).ok().executed == [], "it is told, and believes"
    trust(cluster, client, "w1", "w2")
    ran = careful_build(cluster, client, dockerfile, *THERE).ok()
    assert set(places(ran)) == {"1.1", "1.2"}
    assert ran.output("1.2") != said
    again = careful_build(cluster, client, dockerfile, *THERE).ok()
    assert places(again) == {}, "the workers' results are believed"


def test_what_has_expired_runs_again_though_a_trusted_worker_made_it(cluster: Cluster, client: Program) -> None:
    dockerfile = f"{BASE}\n# buildgraph: ttl=1s\nRUN {RANDOM}\n"
    trust(cluster, client, "w1", "w2")
    first = careful_build(cluster, client, dockerfile, *THERE).ok()
    time.sleep(1.5)
    other = cluster.client("later")
    trust(cluster, other, "w1", "w2")
    second = careful_build(cluster, other, dockerfile, *THERE).ok()
    assert first.output("1.1") != second.output("1.1")


@pytest.mark.slow
def test_workers_that_come_during_a_build_get_what_is_left_of_it(own: Cluster) -> None:
    client = own.client()
    context = client.project(f"{BASE}\nRUN echo here && sleep 15\nRUN echo there\n")
    found: list[Ran] = []
    building = threading.Thread(target=lambda: found.append(own.build(client, context)))
    building.start()
    own.wait(lambda: len(own.state()["builds"]) == 1)
    own.join("w1")
    building.join(110)
    ran = found[0].ok()
    assert places(ran) == {"1.2": "w1"}, "and nothing is said of the first"
    assert (ran.output("1.1"), ran.output("1.2")) == (["here"], ["there"])


@pytest.mark.slow
def test_workers_that_come_during_a_build_get_more_than_this_machine_had_begun(own: Cluster) -> None:
    client = own.client()
    stages = "".join(f"{BASE} AS s{number}\nRUN echo {number}; sleep 15; echo > /s{number}\n" for number in range(3))
    last = "".join(f"COPY --from=s{number} /s{number} /\n" for number in range(3))
    context = client.project(f"{stages}{BASE}\n{last}")
    found: list[Ran] = []
    building = threading.Thread(target=lambda: found.append(own.build(client, context, "--jobs", "1")))
    building.start()
    own.wait(lambda: len(own.state()["builds"]) == 1)
    own.join("w1")
    building.join(110)
    assert set(places(found[0].ok()).values()) == {"w1"}
    assert len(places(found[0])) == 2, "while the first went on here"
