"""Eviction, condemned blobs and clean-ups: the least worth goes first, and never what somebody still reads or names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache import encoding
from cache.blob_files import INLINE_LIMIT
from cache.collect import GcPolicy, collect_after_build
from cache.condemned import reclaim
from cache.digest import Digest
from cache.errors import StoreProblem
from cache.lmdb_store import LmdbStore
from cache.prune import Filters, Limits, Pruned, prune
from cache.readers import live_readers
from cache.result import Result
from cache.store import Batch, NewFile
from cache.usage import Usage, project_key, project_record, result_key
from cache.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL, LARGE = b"small", b"large" * INLINE_LIMIT
NOTHING = Filters()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


def content(name: str) -> str:
    return encoding.key("content", name)


def result_batch(name: str, data: bytes, *, seconds: float = 1.0, made_at: float | None = None) -> Batch:
    """A result whose log is `data`."""
    digest = Digest.of(data)
    result = Result(None, digest, seconds, time.time() if made_at is None else made_at, "ann@laptop")
    recipe = encoding.key("recipe", name)
    return Batch(
        blobs={digest: data},
        records=(
            ("results", content(name), encoding.canonical(result.to_json())),
            ("recipes", recipe, content(name).encode()),
        ),
    )


def used(name: str, last: float, project: str = "/home/app/shop", builds: int = 1) -> Batch:
    usage = Usage(int(last), builds, (project_key(project),))
    return Batch(records=(("uses", result_key(content(name)), usage.encode()), project_record(project)))


def names_of(pruned: Pruned, *names: str) -> list[str]:
    """The given names that went, in the order in which they were chosen."""
    keys = {result_key(content(name)): name for name in names}
    return [keys[each.item.key] for each in pruned.going if each.item.key in keys]


class Peer:
    """Another process with the store open as `store`; LMDB opens a directory once in a process."""

    CODE = """
import sys, traceback
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.store import Batch, NewFile
store = LmdbStore(sys.argv[1])
print("ok", flush=True)
for line in sys.stdin:
    try:
        exec(eval(line))
        print("ok", flush=True)
    except BaseException:
        print(repr(traceback.format_exc()), flush=True)
"""

    def __init__(self, directory: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, directory], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def do(self, code: str) -> None:
        self.start(code)
        self._answer()

    def start(self, code: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{code!r}\n")
        self.process.stdin.flush()

    def _answer(self) -> None:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        assert answer == "ok\n", answer

    finish = _answer

    def end(self, *, kill: bool = False) -> None:
        if not kill:
            self.do("store.close()")
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def peer(store: LmdbStore) -> Iterator[Peer]:
    """One that began when the store was empty; tests that need a later one make it."""
    made = Peer(store.directory)
    yield made
    made.end(kill=True)


def has_result(store: LmdbStore, name: str) -> bool:
    return store.get("results", content(name)) is not None


# condemned blobs


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


def test_publishers_and_clean_ups_of_many_processes(tmp_path: Path) -> None:
    """I3: no record ever names a blob that is not there, and whoever saw a name can read it."""
    seconds, directory = "5", str(tmp_path / "store")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, directory, str(seed), seconds],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for seed in range(4)
    ]  # fmt: skip
    pruners = [
        subprocess.Popen(
            [sys.executable, "-c", PRUNER, directory, seconds],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    counts = []
    for process in (*racers, *pruners):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err[-3000:]
        counts.append([int(word) for word in out.split()])
    published, reused = (sum(count[n] for count in counts[:4]) for n in (0, 1))
    went, came = (sum(count[n] for count in counts[4:]) for n in (0, 1))
    assert min(published, reused, went, came) > 20, "it was a race"
    store = LmdbStore(directory)
    assert verify(store).problems == ()
    prune(store, NOTHING, Limits())
    assert store.scan("results") == []
    assert verify(store).blobs == 0, "all space came back"
    store.close()


# what goes, by filters and limits


def test_each_result_goes_by_itself_by_what_it_is_worth(store: LmdbStore) -> None:
    now = time.time()
    for name, seconds, age in (("cheap", 0.1, 0), ("dear", 600.0, 0), ("old", 600.0, 60 * 86_400)):
        store.commit(result_batch(name, name.encode() * INLINE_LIMIT, seconds=seconds))
        store.commit(used(name, now - age))
    before = prune(store, NOTHING, Limits(max_used=1 << 40)).used
    pruned = prune(store, NOTHING, Limits(max_used=before - 1000))
    assert names_of(pruned, "cheap", "dear", "old") == ["cheap"]
    assert [has_result(store, name) for name in ("cheap", "dear", "old")] == [False, True, True]
    pruned = prune(store, NOTHING, Limits(max_used=pruned.used - 1000))
    assert names_of(pruned, "dear", "old") == ["old"]
    assert "uses no more than" in pruned.going[0].rule


def test_a_limit_that_holds_removes_nothing(store: LmdbStore) -> None:
    store.commit(result_batch("a", LARGE))
    assert prune(store, NOTHING, Limits(max_used=1 << 40, min_free=0)).going == ()
    assert has_result(store, "a")


def test_filters_by_age_project_and_kind(store: LmdbStore) -> None:
    now = time.time()
    for name, age, project in (("new", 0, "/home/app/shop"), ("old", 9, "/home/app/shop"), ("else", 9, "/home/app/workshop")):
        store.commit(result_batch(name, name.encode(), made_at=now - 90 * 86_400))
        store.commit(used(name, now - age * 86_400, project))
    week = Filters(unused_since=now - 7 * 86_400)
    everything = ("new", "old", "else")

    def would(filters: Filters) -> set[str]:
        return set(names_of(prune(store, filters, Limits(), dry_run=True), *everything))

    assert would(week) == {"old", "else"}
    assert would(Filters(projects=("shop",))) == {"new", "old"}
    assert would(Filters(projects=("/home/app/workshop",))) == {"else"}
    assert would(Filters(projects=("app/shop/",))) == {"new", "old"}
    assert would(Filters(projects=("op",))) == set(), "the end of a path is whole names"
    assert would(Filters(kinds=("step",))) == set(everything)
    assert would(Filters(kinds=("base", "mount"))) == set()
    assert all(has_result(store, name) for name in everything), "a dry run removes nothing"
    prune(store, week._replace(projects=("shop",)), Limits())
    assert [has_result(store, name) for name in everything] == [True, False, True]


def test_records_of_an_evicted_result_go_with_it_and_say_so(store: LmdbStore) -> None:
    store.commit(result_batch("a", SMALL))
    store.commit(used("a", time.time()))
    store.commit(result_batch("b", LARGE))
    pruned = prune(store, Filters(projects=("shop",), rule="pruned: of the project shop"), Limits())
    assert names_of(pruned, "a", "b") == ["a"]
    assert [key for key, _ in store.scan("recipes")] == [encoding.key("recipe", "b")]
    assert store.scan("uses") == []
    when, rule, size, _ = encoding.parse(store.get("evictions", content("a")) or b"")
    assert abs(when - time.time()) < 60
    assert rule == "pruned: of the project shop"
    assert size >= len(SMALL)


def test_what_results_share_stays_with_the_last_of_them(store: LmdbStore) -> None:
    store.commit(result_batch("a", LARGE))
    store.commit(result_batch("b", LARGE))
    store.commit(used("a", time.time()))
    pruned = prune(store, Filters(projects=("shop",)), Limits())
    assert names_of(pruned, "a", "b") == ["a"]
    assert pruned.reclaimed.bytes == 0
    assert store.read_blob(Digest.of(LARGE)) == LARGE
    assert prune(store, NOTHING, Limits()).reclaimed.bytes >= len(LARGE)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["inline", "file"])
def test_a_blob_without_a_record_is_reclaimed(store: LmdbStore, data: bytes) -> None:
    store.commit(Batch(blobs={Digest.of(data): data}))
    prune(store, NOTHING, Limits(max_used=1 << 40))
    assert not store.has_blob(Digest.of(data))


# by itself, after builds


def test_the_automatic_clean_up_keeps_the_limit(store: LmdbStore) -> None:
    policy = GcPolicy(max_used=1 << 20)
    assert collect_after_build(store, policy) is None
    for number in range(30):
        store.commit(result_batch(str(number), os.urandom(100_000)))
    line = collect_after_build(store, policy)
    assert line is not None
    assert "cleaned up the cache" in line
    left = sum(path.stat().st_size for path in Path(store.directory, "blobs").rglob("*") if path.is_file())
    assert 300_000 < left <= 1 << 20
    assert collect_after_build(store, policy) is None, "there is nothing to do any more"


def test_the_automatic_clean_up_is_cheap_when_there_is_nothing_to_do(store: LmdbStore) -> None:
    store.commit(result_batch("a", LARGE))
    policy = GcPolicy()
    collect_after_build(store, policy)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert collect_after_build(store, policy) is None
        times.append(time.perf_counter() - began)
    assert sorted(times)[10] < 0.001


def test_the_automatic_clean_up_can_be_off_and_never_fails(store: LmdbStore, tmp_path: Path) -> None:
    store.commit(result_batch("a", LARGE))
    assert collect_after_build(store, GcPolicy(enabled=False, max_used=1)) is None
    assert has_result(store, "a")
    other = LmdbStore(str(tmp_path / "other"))
    other.commit(result_batch("a", LARGE))
    os.rename(other.directory, f"{other.directory}.moved")
    assert collect_after_build(other, GcPolicy(max_used=1)) is None
    os.rename(f"{other.directory}.moved", other.directory)
    other.close()


def test_opening_a_store_registers_it_and_closing_ends_that(store: LmdbStore, peer: Peer) -> None:
    assert [each.pid for each in live_readers(store.directory, store.reader)] == [peer.process.pid]
    peer.end()
    assert live_readers(store.directory, store.reader) == []
    assert [path.name for path in Path(store.directory, "readers").iterdir()] == [store.reader]
