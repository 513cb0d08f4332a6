"""Workers that take nothing new: who says so last is right, whatever starts anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from scheduled import Scheduled, key
from serving import make_token

from cache.lmdb_store import LmdbStore
from cache.store import Batch
from worker.fleet.cordons import RECORD

if TYPE_CHECKING:
    from cluster import Cluster

K = key(1)


def cordon(fleet: Scheduled, *, off: bool = False) -> None:
    fleet.fleet().Cordon(pb.CordonRequest(worker="w1", off=off), metadata=[("name", "root")])


def test_a_worker_that_starts_cordoned_stays_so_after_the_server_started_anew(fleet: Scheduled) -> None:
    fleet.worker(cordoned=True).joined()
    fleet.again()
    again = fleet.worker().joined()
    assert fleet.state().workers[0].state == "cordoned"
    fleet.build().execute(K)
    assert again.none("lease")
    cordon(fleet, off=True)
    assert again.lease()


def test_what_an_admin_said_later_holds_after_the_server_started_anew(fleet: Scheduled) -> None:
    fleet.worker(cordoned=True).joined()
    cordon(fleet, off=True)
    fleet.again()
    fleet.worker().joined()
    assert fleet.state().workers[0].state == "ready"


def test_a_worker_that_comes_back_says_nothing_that_an_admin_took_back(fleet: Scheduled) -> None:
    first = fleet.worker(cordoned=True).joined()
    cordon(fleet, off=True)
    fleet.worker(cordoned=True, incarnation=first.incarnation).joined()  # it never heard the first welcome
    assert fleet.state().workers[0].state == "ready"
    fleet.worker(cordoned=True).joined()
    assert fleet.state().workers[0].state == "cordoned", "it was started that way"


def test_a_record_that_nobody_can_read_stops_no_server(fleet: Scheduled) -> None:
    fleet.stop_server()
    store = LmdbStore(str(fleet.root / "served"))
    store.commit(Batch(records=(("shared", RECORD, b"{"),)))
    store.close()
    fleet._start()
    fleet.worker().joined()
    assert fleet.state().workers[0].state == "ready"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="workers of these tests mount as root")
def test_uncordon_lasts_for_a_worker_that_was_started_with_cordon(own: Cluster) -> None:
    def state() -> str:
        return next((str(each["state"]) for each in own.state()["workers"]), "")

    secret = make_token(own.server.store, "--name", "admin", "--scope", "admin")
    own.join("w1", arguments=("--cordon",))
    assert state() == "cordoned"
    admin = own.client("admin", secret)
    admin.call("fleet", "uncordon", "w1", "--remote", own.url).ok()
    assert state() == "ready"
    own.restart_server()
    own.wait(lambda: state() != "")
    assert state() == "ready"
