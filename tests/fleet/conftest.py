"""What many tests of the fleet begin with."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster
from orders import Made, Orders, layer_of
from scheduled import Scheduled, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Program


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Scheduled]:
    """The scheduler's service alone."""
    yield from started(tmp_path)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Scheduled]:
    """Waits long for builds whose stream broke."""
    yield from started(tmp_path, away_seconds=30.0)


@pytest.fixture
def own(tmp_path: Path, busybox: Path) -> Iterator[Cluster]:
    """A server for workers that do not live long, without any so far."""
    made = Cluster(tmp_path, busybox)
    yield made
    made.close()


@pytest.fixture
def cluster(own: Cluster) -> Cluster:
    """The same; files whose tests share one have another of this name."""
    return own


@pytest.fixture
def client(cluster: Cluster, request: pytest.FixtureRequest) -> Program:
    """A machine with an empty store."""
    return cluster.client(re.sub(r"\W+", "-", request.node.name)[:60])


@pytest.fixture(scope="module")
def base(busybox: Path) -> Made:
    return layer_of(busybox)


@pytest.fixture
def build(cluster: Cluster, base: Made) -> Iterator[Orders]:
    made = Orders(cluster.server.address, cluster.token)
    made.put(base)
    yield made
    made.close()
