"""Faults of a cluster, some of each kind; `make chaos` does more. And workers that lie, or whose disk is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chaos import LEASE, in_lanes
from machines import BASE, EPOCH, HERE, THERE, Machines, digest, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machines import Builder
    from program import Ran

pytestmark = [pytest.mark.slow, pytest.mark.alone]
RUNS = int(os.environ.get("BUILDGRAPH_CHAOS_RUNS", "200"))
SEED = int(os.environ.get("BUILDGRAPH_CHAOS_SEED", "7"))
LANES = 4
"""Clusters at the same time: on two cores each spends most of its time waiting."""
SMALL_DISK = 96 << 20
LIES = 3
"""Builds for each lie."""


def test_every_build_ends_well_whatever_goes_wrong() -> None:
    assert in_lanes(RUNS, SEED, "", LANES) == RUNS


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("cluster"), busybox, lease=LEASE) as made:
        made.join("w1", slots=1)
        made.ready("w1")
        yield made


def two_stages(token: str) -> str:
    stages = "".join(f"FROM base AS {name}\nRUN sleep 0.4 && echo {name} > /{name} && : {token}\n" for name in "ab")
    return f"{BASE}{stages}FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"


@pytest.fixture(scope="module")
def expected(machines: Machines) -> str:
    """The image of `two_stages`, whose steps' tokens it does not hold."""
    alone = machines.alone()
    found = digest(alone.build(alone.project(two_stages("alone")), *EPOCH).ok())
    assert found.startswith("sha256:")
    return found


def with_liar(machines: Machines, lie: str, token: str, *arguments: str) -> list[Ran]:
    """Builds with an honest worker that has one slot and a liar that has four."""
    liar = machines.join(lie, slots=4, lie=lie, machine="w2")
    found = []
    try:
        machines.ready("w1", lie)
        client: Builder = machines.clients[0]
        for number in range(LIES):
            context = client.project(two_stages(f"{token}{number}"), name="lied-to")
            found.append(machines.build(client, context, *EPOCH, *arguments, seconds=90))
    finally:
        liar.kill()
        del machines.workers[lie]
    return found


@pytest.mark.parametrize("lie", ["no-such-blob", "foreign-signature", "lease-never-had", "lease-lost"])
def test_what_a_liar_says_is_thrown_away(machines: Machines, expected: str, lie: str) -> None:
    for ran in with_liar(machines, lie, lie, *THERE):
        assert digest(ran.ok()) == expected
        assert "Traceback" not in ran.stderr
    assert machines.workers["w1"].runs


def test_a_layer_that_is_not_what_its_worker_says_is_never_in_an_image(machines: Machines, expected: str) -> None:
    target = machines.root / "taken-out"
    for ran in with_liar(machines, "wrong-layer", "wrong", *HERE, "-o", f"type=oci,dest={target},tar=false"):
        assert "Traceback" not in ran.stderr
        assert ran.code in (0, 4, 5), ran.stderr
        assert ran.code == 0 or ran.stderr.strip()
        if ran.code == 0:
            assert digest(ran) == expected, "what has a wrong layer in it is no image"
        shutil.rmtree(target, ignore_errors=True)


def test_a_worker_whose_disk_is_full_gives_back_what_it_has(machines: Machines) -> None:
    small = machines.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", small], check=True)
    try:
        worker = machines.join("w3", slots=4, store=small / "store")
        machines.ready("w1", "w3")
        client = machines.clients[1]
        stages = "".join(f"FROM base AS s{n}\nRUN head -c 60000000 /dev/zero > /{n} && wc -c < /{n} > /n\n" for n in range(4))
        dockerfile = f"{BASE}{stages}FROM base\n" + "".join(f"COPY --from=s{n} /n /n{n}\n" for n in range(4))
        ran = machines.build(client, client.project(dockerfile, name="much"), *EPOCH, *THERE, seconds=110).ok()
        alone = machines.alone()
        assert digest(ran) == digest(alone.build(alone.project(dockerfile), *EPOCH).ok())
        assert "w1" in places(ran).values()
        assert "Traceback" not in worker.said
        assert "given back" in worker.said or not worker.runs, worker.said
        worker.end()
        assert client.call("cache", "verify", "--store", small / "store").code == 0
    finally:
        if "w3" in machines.workers:
            machines.workers.pop("w3").kill()
        for _ in range(50):
            if subprocess.run(["umount", small], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.2)
    assert str(small) not in Path("/proc/self/mounts").read_text()
