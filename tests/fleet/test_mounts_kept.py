"""Snapshots of cache mounts at the server, and at a worker that is given one: whose it takes, and who gets them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import remote_execution_pb2 as re_pb
from buildgraph.v1 import remote_execution_pb2_grpc as re_services
from scheduled import Scheduled, key, started

from cache.digest import Digest
from cache.errors import UsageError
from cache.lmdb_store import LmdbStore
from cache.remote.action_results import action_text, digest_of, name_by
from cache.remote_settings import RemoteSettings
from cache.result import Layer
from compiler.cli.serve_options import check_serve, serve_options, serve_parser
from worker.cache_mounts import mount_key
from worker.fleet.hot_layers import HotLayers
from worker.fleet.identity import Identity
from worker.fleet.inputs import Inputs
from worker.fleet.mount_filler import MountFiller
from worker.fleet.mount_layer import layer_message, snapshot_layer
from worker.fleet.mount_limits import MAX_SNAPSHOT
from worker.fleet.no_fetcher import NoFetcher
from worker.fleet.remotes import Remotes
from worker.fleet.signed_texts import mount_text
from worker.library import LayerLibrary
from worker.operation import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scheduled import Worker

DEPS = "deps"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Scheduled]:
    yield from started(tmp_path, shares_mounts=True)


def snapshot(worker: Worker, namespace: str = "", cache: str = DEPS, **fields: Any) -> pb.MountSnapshot:
    """Signed, with blobs that are on the server."""
    tar, listing = (worker.put(f"{what} {time.time_ns()}".encode(), namespace) for what in ("tar", "listing"))
    made = pb.MountSnapshot(cache=cache, made_at_ms=round(time.time() * 1000), worker_key=worker.identity.public)
    made.layer.CopyFrom(layer_message(Layer("sha256:" + "ab" * 32, "content", tar, listing)))
    for name, value in fields.items():
        if name == "layer":
            made.layer.CopyFrom(layer_message(value))
        else:
            setattr(made, name, value)
    made.signature = worker.identity.sign(mount_text(namespace, made))
    return made


def publish(fleet: Scheduled, worker: Worker, made: pb.MountSnapshot, namespace: str = "") -> dict[str, Any]:
    """What the journal says of it."""
    before = [len(fleet.said(event)) for event in ("snapshot kept", "snapshot refused")]
    worker.send(mount=pb.WorkerMessage.MountPublished(instance_name=namespace, snapshot=made))
    fleet.wait_for(lambda: [len(fleet.said(event)) for event in ("snapshot kept", "snapshot refused")] != before)
    kept = fleet.said("snapshot kept")[before[0] :]
    return (kept or fleet.said("snapshot refused"))[-1]


def lease(fleet: Scheduled, worker: Worker, number: int, namespace: str = "", cache: str = DEPS) -> pb.SchedulerMessage.Lease:
    """One with a cache mount, which has ended."""
    build = fleet.build(namespace=namespace)
    build.execute(key(number), needs={"caches": [cache]})
    given = worker.lease()
    worker.done(given)
    build.take("done")
    return given


def test_a_snapshot_comes_with_leases_of_its_namespace_and_id_also_after_a_restart(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    assert worker.welcome.shares_mounts
    assert not lease(fleet, worker, 1).mounts
    made = snapshot(worker)
    assert publish(fleet, worker, made)["cache"] == DEPS
    assert list(lease(fleet, worker, 2).mounts) == [made]
    assert not lease(fleet, worker, 3, cache="other").mounts
    assert not lease(fleet, worker, 4, namespace="other").mounts
    newer = snapshot(worker)
    publish(fleet, worker, newer)
    fleet.again()
    again = fleet.worker().joined()
    assert list(lease(fleet, again, 5).mounts) == [newer]


def test_only_a_worker_that_had_the_cache_says_what_is_in_it(fleet: Scheduled) -> None:
    one, two = fleet.worker("w1", slots=2).joined(), fleet.worker("w2", slots=2, cordoned=True).joined()
    lease(fleet, one, 1)
    theirs = snapshot(one)
    theirs.signature = two.identity.sign(mount_text("", theirs))
    missing = Layer("sha256:" + "cd" * 32, "content", Digest.of(b"not there"), Digest.of(b"neither"))
    large = Layer("sha256:" + "cd" * 32, "content", Digest("ab" * 32, MAX_SNAPSHOT + 1), Digest.of(b"listing"))
    for worker, made, namespace, text in (
        (one, theirs, "", "not signed by the worker's key"),
        (one, snapshot(one, namespace="other"), "", "not signed by the worker's key"),
        (one, snapshot(one, worker_key=two.identity.public), "", "another key"),
        (one, snapshot(one, cache="other"), "", "no lease with this cache"),
        (one, snapshot(one, namespace="other"), "other", "no lease with this cache"),
        (two, snapshot(two), "", "no lease with this cache"),
        (one, snapshot(one, made_at_ms=round((time.time() + 86400) * 1000)), "", "no time that has been"),
        (one, snapshot(one, layer=missing), "", "missing"),
        (one, snapshot(one, layer=missing._replace(content="c" * 5000)), "", "says too much"),
        (one, snapshot(one, layer=large), "", "more than 2.0 GiB"),
        (one, snapshot(one, layer=Layer("sha256:" + "cd" * 32, "content")), "", "without its blobs"),
    ):
        assert text in publish(fleet, worker, made, namespace)["text"]
    assert not lease(fleet, one, 2).mounts
    assert not fleet.said("snapshot kept")


def test_nobody_reads_or_writes_one_as_the_result_of_an_action(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    lease(fleet, worker, 1)
    made = snapshot(worker)
    publish(fleet, worker, made)
    result = re_pb.ActionResult()
    result.execution_metadata.auxiliary_metadata.add().Pack(snapshot(worker))
    cache = re_services.ActionCacheStub(fleet.channel())
    for text in (action_text("mount", DEPS), DEPS.encode()):
        request = re_pb.UpdateActionResultRequest(
            action_digest=digest_of(name_by("blake3", text)), action_result=result, digest_function=re_pb.DigestFunction.BLAKE3
        )  # fmt: skip
        cache.UpdateActionResult(request, metadata=[("name", "ann")])
    assert list(lease(fleet, worker, 2).mounts) == [made]
    fleet.again()
    again = fleet.worker().joined()
    assert list(lease(fleet, again, 3).mounts) == [made]
    assert again.welcome.shares_mounts


def test_its_blobs_are_those_of_a_record_and_without_them_there_is_none(fleet: Scheduled) -> None:
    worker = fleet.worker().joined()
    lease(fleet, worker, 1)
    made = snapshot(worker)
    publish(fleet, worker, made)
    tar = snapshot_layer(made).tar
    with fleet.store.transaction() as view:
        records = [record for name, record in view.scan("actions") if "/mount/" in name]
        assert len(records) == 1
        assert str(tar).encode() in records[0], "the clean-up sees that it needs its blobs"
        view.delete("members", f"\0{tar}")
    assert not lease(fleet, worker, 2).mounts


def test_a_server_that_does_not_share_takes_none_and_gives_none(tmp_path: Path) -> None:
    for fleet in started(tmp_path):
        worker = fleet.worker().joined()
        assert not worker.welcome.shares_mounts
        lease(fleet, worker, 1)
        assert "not shared" in publish(fleet, worker, snapshot(worker))["text"]
        assert not lease(fleet, worker, 2).mounts


def test_a_worker_believes_no_snapshot_that_nobody_signed(tmp_path: Path) -> None:
    said: list[str] = []
    store = LmdbStore(str(tmp_path / "store"))
    library = LayerLibrary(store, NoFetcher())
    hot = HotLayers(store, library, None, 1 << 30)
    inputs = Inputs(store, library, hot, Remotes(store, RemoteSettings(False, "127.0.0.1:1", ("",), "")))
    filler = MountFiller(library, hot, inputs, said.append)
    identity = Identity.load(str(tmp_path / "key"))
    mount = Mount("cache", "/c", id="team/a\0s3cret")
    made = pb.MountSnapshot(made_at_ms=1, worker_key=identity.public)
    made.layer.CopyFrom(layer_message(Layer("sha256:" + "ab" * 32, "content", Digest.of(b"tar"), Digest.of(b"listing"))))
    made.cache = mount_key(mount._replace(id="s3cret"))
    made.signature = identity.sign(mount_text("team/b", made))
    place = tmp_path / "mount"
    place.mkdir()
    warm = filler.warmer("team/a", [made], lambda: False, lambda text: text.replace("s3cret", "[secret]"))
    assert not warm(mount, str(place))
    assert said == ["the cache mount '[secret]' begins without its snapshot: it is not signed by the worker that it names"]
    assert not warm(mount._replace(id="team/a\0other"), str(place)), "of which there is none"
    assert len(said) == 1
    store.close()


def test_the_server_is_told_by_an_option_or_its_table(tmp_path: Path) -> None:
    def shares(arguments: list[str], table: dict[str, Any]) -> bool:
        check_serve("buildgraph.toml", table)
        return serve_options(serve_parser().parse_args(arguments), str(tmp_path), table).shares_mounts

    assert not shares([], {})
    assert shares([], {"cache-mounts": "shared"})
    assert shares(["--cache-mounts", "shared"], {"cache-mounts": "own"})
    assert not shares(["--cache-mounts", "own"], {"cache-mounts": "shared"})
    with pytest.raises(UsageError, match="'everybody' is not own or shared"):
        shares([], {"cache-mounts": "everybody"})
