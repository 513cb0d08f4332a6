"""Clean-ups of a server's store: within limits, never what a result names, never half of anything."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from serving import Refusal, call, digest_of
from shelved import DAY, Shelved, action_message

from cache import chunks
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.server.chunk_index import ChunkIndex
from cache.server.journal import Journal
from cache.server.leftovers import drop_leftovers
from cache.server.metrics import Metrics
from cache.server.quotas import NamespaceLimit, Quotas
from cache.server.server_gc import Policy, ServerGc
from cache.store import Batch
from cache.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect, Serve

MB = 1_000_000


def collector(shelved: Shelved, tmp_path: Path, max_used: int | None = None, *limits: NamespaceLimit, **policy: float) -> ServerGc:
    quotas = Quotas(shelved.store, limits, max_used)
    return ServerGc(shelved.shelf, quotas, Policy(**policy), Journal(str(tmp_path / "log")), Metrics())  # type: ignore[arg-type]


def assert_whole(shelved: Shelved) -> None:
    assert verify(shelved.store).problems == ()


def test_what_no_record_names_is_swept(shelved: Shelved, tmp_path: Path) -> None:
    """A chunk that was spliced into a blob, a file that a kill left."""
    loose, kept = shelved.large(days=1), shelved.large(days=1)
    shelved.store.commit(Batch(deleted=(("members", f"main\0{loose}"),)))
    assert collector(shelved, tmp_path).sweep() >= MB
    assert not shelved.store.has_blob(Digest.parse(loose))
    assert shelved.is_there(kept)
    assert_whole(shelved)


def test_the_least_worth_goes_and_its_bytes_come_back(shelved: Shelved, tmp_path: Path) -> None:
    blobs = [shelved.large(days=30 - n) for n in range(10)]
    keys = [shelved.action(f"a{n}", blob, days=30 - n) for n, blob in enumerate(blobs)]
    before = shelved.store.files.scan()
    assert sum(1 for _ in before) == 10
    done = collector(shelved, tmp_path, 6 * MB).collect()
    assert done.actions == done.blobs >= 4
    assert done.freed >= 4 * MB
    left = [shelved.store.get("actions", key) is not None for key in keys]
    assert left == sorted(left), "the oldest went"
    assert [shelved.is_there(blob) for blob in blobs] == left
    assert_whole(shelved)


def test_what_two_namespaces_have_goes_with_the_last(shelved: Shelved, tmp_path: Path) -> None:
    data = os.urandom(MB)
    shared = shelved.blob(data, "pr/1", days=50)
    assert shelved.blob(data, "main", days=1) == shared
    shelved.action("a", shared, namespace="main", days=1)
    mine = shelved.large("pr/1", days=40)
    done = collector(shelved, tmp_path, None, NamespaceLimit("pr/*", 1)).collect()
    assert done.blobs == 2
    assert not shelved.belongs(shared, "pr/1")
    assert shelved.is_there(shared), "main has it"
    assert not shelved.is_there(mine)
    assert_whole(shelved)


def test_a_small_blob_goes_as_a_large_one_does(shelved: Shelved, tmp_path: Path) -> None:
    old, new = shelved.blob(b"old" * 1000, days=100), shelved.blob(b"new" * 1000, days=1)
    done = collector(shelved, tmp_path, None, unused_for=90.0 * DAY).collect()
    assert done.blobs == 1
    assert not shelved.is_there(old)
    assert shelved.is_there(new)


def test_what_is_used_or_published_meanwhile_stays(shelved: Shelved, tmp_path: Path) -> None:
    """Between the look and the removal somebody reads one, uploads one again, and publishes a result of a third."""
    blobs = [shelved.large(days=50) for _ in range(4)]
    key = shelved.action("read", blobs[3], days=60)
    gc = collector(shelved, tmp_path, 1)
    drop = gc._drop

    def just_before(*arguments: object) -> tuple[int, int]:
        shelved.shelf.find("main", "blake3", [blobs[0]])
        shelved.shelf.uses.touch_action(key)
        return drop(*arguments)  # type: ignore[arg-type]

    gc._drop = just_before  # type: ignore[method-assign]
    done = gc.collect()
    assert [shelved.belongs(blob) for blob in blobs] == [True, False, False, True]
    assert shelved.store.get("actions", key) is not None
    assert (done.actions, done.blobs) == (0, 2)
    assert_whole(shelved)


def test_chunks_and_other_names_go_with_their_blob(shelved: Shelved, tmp_path: Path) -> None:
    data = os.urandom(4 * chunks.WHOLE)
    old = shelved.blob(data, days=50)
    kept = shelved.blob(data[: 3 * chunks.WHOLE] + b"another end", days=1)
    index = ChunkIndex(shelved.shelf)
    parts = index.split("main", "blake3", old)
    others = index.split("main", "blake3", kept)
    assert len(set(parts) & set(others)) > 2
    only = next(part for part in parts if part not in others)
    shelved.shelf.uses.drain()  # cutting was a use
    collector(shelved, tmp_path, None, unused_for=30.0 * DAY).collect()
    assert not shelved.is_there(old)
    assert shelved.store.get("chunks", old) is None
    assert shelved.store.get("ranges", only) is None
    assert shelved.shelf.find("main", "blake3", [only]) == {}
    both = next(part for part in parts if part in others)
    assert str(shelved.shelf.find("main", "blake3", [both])[both].holder) == kept
    aliases = len(shelved.store.scan("aliases"))
    assert drop_leftovers(shelved.store) >= 1
    assert len(shelved.store.scan("aliases")) < aliases
    assert shelved.shelf.missing("main", "sha256", [f"{digest_of(data).hash}/{len(data)}"])
    assert_whole(shelved)


def test_last_uses_are_written_down_once_in_a_while(shelved: Shelved, tmp_path: Path) -> None:
    blob = shelved.large(days=3)
    gc = collector(shelved, tmp_path)
    gc.flush()
    assert shelved.last_use(blob) < time.time() - 2 * DAY
    shelved.shelf.find("main", "blake3", [blob])
    gc.flush()
    assert shelved.last_use(blob) >= time.time() - 5
    written = shelved.store.get("members", f"main\0{blob}")
    with shelved.store.view() as view:
        at = view.id
    shelved.shelf.find("main", "blake3", [blob])
    gc.flush()
    with shelved.store.view() as view:
        assert view.id == at, "a use that is known already costs no write"
    assert shelved.store.get("members", f"main\0{blob}") == written


def test_a_clean_up_beside_32_writers_loses_nothing_that_was_acknowledged(shelved: Shelved, tmp_path: Path) -> None:
    """Results that came after a clean-up began are whole at the end, whatever of their blobs was old."""
    shelved.store.start_writer()
    old = [shelved.blob(os.urandom(50_000), days=60) for _ in range(64)]
    gc = collector(shelved, tmp_path, 1)
    published: list[tuple[str, str]] = []
    stop = threading.Event()

    def write(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            blob = old[(number * 7 + turn) % len(old)]
            # As UpdateActionResult does: look, then publish.
            if shelved.shelf.find("main", "blake3", [blob]):
                try:
                    published.append((shelved.action(f"{number}-{turn}", blob), blob))
                except Exception as error:  # noqa: BLE001
                    assert "the store has no blob" in str(error)  # noqa: PT017

    writers = [threading.Thread(target=write, args=(number,)) for number in range(32)]
    for each in writers:
        each.start()
    turns, until = 0, time.monotonic() + 60
    while turns < 6 or (len(published) <= 50 and time.monotonic() < until):
        gc.collect()
        turns += 1
    stop.set()
    for each in writers:
        each.join()
    assert len(published) > 50
    for _, blob in published:
        assert shelved.is_there(blob)
    assert_whole(shelved)


@pytest.mark.slow
def test_a_server_keeps_within_its_limit_by_itself(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    shelved = Shelved(tmp_path / "served")
    for number in range(20):
        shelved.action(f"a{number}", shelved.large(days=40 - number), days=40 - number)
    shelved.close()
    serving = serve("--anonymous", "write", "--max-used-space", "12m")
    client = connect(serving)
    line = serving.wait_for("cleaned")
    assert line["actions"] >= 8
    assert line["freed"] >= 8 * MB
    assert serving.metric("buildgraph_store_bytes") < 12 << 20
    assert serving.metric("buildgraph_gc_runs_total") >= 1
    assert serving.metric('buildgraph_gc_removed_total{kind="action"}') == line["actions"]
    assert client.result(action_message("a19"), "main") is not None
    assert client.result(action_message("a0"), "main") is None
    assert serving.stop() == (0, "")
    assert call("cache", "verify", "--store", tmp_path / "served").returncode == 0


@pytest.mark.slow
def test_a_write_that_meets_a_limit_starts_the_clean_up(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    shelved = Shelved(tmp_path / "served")
    for _ in range(4):
        shelved.large("pr/7", days=9)
    shelved.close()
    serving = serve("--anonymous", "write", "--namespace-limit", "pr/*=5m")
    client = connect(serving)
    client.write(os.urandom(2 * MB), "pr/7")  # over it, yet within what a clean-up can make room for
    assert serving.wait_for("cleaned")["blobs"] >= 1
    client.write(os.urandom(2 * MB), "pr/7")
    assert serving.metric('buildgraph_namespace_bytes{namespace="pr/7"}') <= 1.25 * (5 << 20)
    with Refusal() as refused:
        client.write(os.urandom(6 * MB), "pr/7")
    assert "never fit" in refused.text


def test_uses_survive_a_restart(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    shelved = Shelved(tmp_path / "served")
    data = os.urandom(MB)
    shelved.blob(data, days=9)
    shelved.close()
    serving = serve("--anonymous", "read")
    assert connect(serving).read(digest_of(data), "main") == data
    assert serving.stop() == (0, "")
    again = LmdbStore(str(tmp_path / "served"))
    row = again.get("members", f"main\0{Digest.of(data)}")
    again.close()
    assert row is not None
    assert int(row.split(b",")[1]) >= time.time() - 60
