"""Condemned blobs: none goes that somebody still reads or names, in whatever order processes publish and clean up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.condemned import reclaim
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.lmdb_store import LmdbStore
from cache.prune import Filters, Limits, prune
from cache.readers import live_readers
from cache.store import Batch, NewFile
from cache.verify import verify
from tests.cache.stored import LARGE, ROOT, SMALL, Peer, has_result, names_of, result_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = Filters()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def peer(store: LmdbStore) -> Iterator[Peer]:
    """One that began when the store was empty; tests that need a later one make it."""
    made = Peer(store.directory)
    yield made
    made.end(kill=True)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["inline", "file"])
def test_a_blob_stays_until_every_reader_from_before_has_ended(store: LmdbStore, peer: Peer, data: bytes) -> None:
    store.commit(result_batch("a", data))
    pruned = prune(store, NOTHING, Limits())
    assert names_of(pruned, "a") == ["a"]
    assert pruned.reclaimed.waiting == len(data)
    assert [each.pid for each in pruned.reclaimed.holders] == [peer.process.pid]
    peer.do(f"digest = Digest.parse({str(Digest.of(data))!r})\nassert Digest.of(store.read_blob(digest)) == digest")
    assert reclaim(store).blobs == 0
    later = Peer(store.directory)
    peer.end()
    assert reclaim(store).bytes >= len(data), "the later one never saw a record that names it"
    assert not store.has_blob(Digest.of(data))
    later.end()


def test_a_reader_that_was_killed_holds_nothing(store: LmdbStore, peer: Peer) -> None:
    store.commit(result_batch("a", LARGE))
    assert prune(store, NOTHING, Limits()).reclaimed.waiting == len(LARGE)
    peer.end(kill=True)
    assert reclaim(store).bytes >= len(LARGE)
    assert [path.name for path in Path(store.directory, "readers").iterdir()] == [store.reader]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["inline", "file"])
@pytest.mark.parametrize("way", ["blobs", "files", "needs", "named"])
def test_what_is_published_again_is_not_removed(store: LmdbStore, peer: Peer, data: bytes, way: str) -> None:
    digest = Digest.of(data)
    store.commit(result_batch("a", data))
    assert prune(store, NOTHING, Limits()).reclaimed.waiting == len(data)
    again = result_batch("b", data)
    if way == "files":
        path = Path(store.directory, "new")
        path.write_bytes(data)
        again = again._replace(blobs={}, files=(NewFile(digest, str(path)),))
    elif way == "needs":
        again = again._replace(blobs={}, needs=(digest,))
    elif way == "named":
        again = again._replace(blobs={})
    peer.do(f"store.commit({again!r})")
    peer.end()
    assert reclaim(store).blobs == 0
    assert store.read_blob(digest) == data
    assert verify(store).problems == ()


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["inline", "file"])
@pytest.mark.parametrize("threaded", [False, True], ids=["caller-writes", "writer-thread"])
def test_a_batch_that_needs_what_is_gone_fails_alone(store: LmdbStore, data: bytes, threaded: bool) -> None:
    if threaded:
        store.start_writer()
    lost = result_batch("lost", data)
    with pytest.raises(StoreProblem, match="needs"):
        store.commit(lost._replace(blobs={}, needs=tuple(lost.blobs)))
    store.commit(result_batch("kept", SMALL))
    assert not has_result(store, "lost")
    assert has_result(store, "kept")


def test_a_file_that_a_clean_up_took_is_linked_again(store: LmdbStore, peer: Peer) -> None:
    """The file stood there when the publisher looked, and was unlinked before its transaction began."""
    digest = Digest.of(LARGE)
    store.commit(Batch(blobs={digest: LARGE}))
    with store.transaction():  # as a clean-up holds it while it unlinks
        peer.start(f"store.commit({result_batch('a', LARGE)!r})")
        time.sleep(0.3)
        store.files.remove(digest.hash)
    peer.finish()
    assert has_result(store, "a")
    assert store.read_blob(digest) == LARGE


RACER = """
import os, random, sys, time
from cache import encoding
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.lmdb_store import LmdbStore
from cache.result import Result
from cache.store import Batch, NewFile

directory, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
dice = random.Random(seed)
payloads = [bytes([n]) * (40 + n) for n in range(12)] + [bytes([n]) * (40_000 + n) for n in range(12)]
end = time.monotonic() + seconds
published = reused = 0
while time.monotonic() < end:
    store = LmdbStore(directory)
    if dice.random() < 0.5:
        store.start_writer()
    for _ in range(dice.randrange(1, 12)):
        data = dice.choice(payloads)
        digest = Digest.of(data)
        result = Result(None, digest, 1.0, time.time(), "racer")
        key = encoding.key("race", [seed, dice.randrange(40)])
        record = ("results", key, encoding.canonical(result.to_json()))
        known = store.scan("results")
        if known and dice.random() < 0.5:
            # What this reader sees named it can read, and name again, whoever cleans up.
            seen = Result.from_json(encoding.parse(dice.choice(known)[1]))
            time.sleep(dice.random() * 0.01)
            assert Digest.of(store.read_blob(seen.log)) == seen.log
            again = seen._replace(made_by="again")
            store.commit(Batch(records=(("results", key, encoding.canonical(again.to_json())),), needs=(seen.log,)))
            assert Digest.of(store.read_blob(seen.log)) == seen.log
            reused += 1
        elif dice.random() < 0.5:
            path = store.scratch("new")
            with open(path, "wb") as file:
                file.write(data)
            store.commit(Batch(files=(NewFile(digest, path),), records=(record,)))
            published += 1
        else:
            store.commit(Batch(blobs={digest: data}, records=(record,)))
            published += 1
    store.close()
print(published, reused)
"""

PRUNER = """
import sys, time
from cache.lmdb_store import LmdbStore
from cache.prune import Filters, Limits, prune
end = time.monotonic() + float(sys.argv[2])
went = came = 0
while time.monotonic() < end:
    store = LmdbStore(sys.argv[1])
    pruned = prune(store, Filters(), Limits())
    went += len(pruned.going)
    came += pruned.reclaimed.blobs
    store.close()
print(went, came)
"""


def race(directory: str, number: int) -> list[int]:
    """Four publishers and two that clean up, for five seconds. How often it was published, used again, went, came back."""
    commands = [["-c", RACER, directory, str(4 * number + seed), "5"] for seed in range(4)]
    commands += [["-c", PRUNER, directory, "5"]] * 2
    processes = [
        subprocess.Popen([sys.executable, *each], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for each in commands
    ]
    counts = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err[-3000:]
        counts.append([int(word) for word in out.split()])
    return [sum(count[n] for count in group) for group in (counts[:4], counts[4:]) for n in (0, 1)]


@pytest.mark.slow
def test_publishers_and_clean_ups_of_many_processes(tmp_path: Path) -> None:
    """I3: no record ever names a blob that is not there, and whoever saw a name can read it."""
    directory = str(tmp_path / "store")
    happened = [0, 0, 0, 0]
    for number in range(12):  # on a slow machine five seconds are no race
        happened = [sum(each) for each in zip(happened, race(directory, number), strict=True)]
        if min(happened) > 20:
            break
    assert min(happened) > 20, f"published, used again, went, came back: {happened}"
    store = LmdbStore(directory)
    assert verify(store).problems == ()
    prune(store, NOTHING, Limits())
    assert store.scan("results") == []
    assert verify(store).blobs == 0, "all space came back"
    store.close()


def test_opening_a_store_registers_it_and_closing_ends_that(store: LmdbStore, peer: Peer) -> None:
    assert [each.pid for each in live_readers(store.directory, store.reader)] == [peer.process.pid]
    peer.end()
    assert live_readers(store.directory, store.reader) == []
    assert [path.name for path in Path(store.directory, "readers").iterdir()] == [store.reader]
