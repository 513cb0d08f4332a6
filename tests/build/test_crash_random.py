"""I6: killed at random moments, 50 and more, of builds, clean-ups and publishes, the store is whole each time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from test_crash import BASE, processes_with, wait_for

from bench.run import YARD, yard
from cache.lmdb_store import LmdbStore
from cache.verify import verify

if TYPE_CHECKING:
    from program import Program

ROOT = Path(__file__).resolve().parent.parent.parent
SHARE = 17
"""Moments of each kind, 50 in all and one more."""
TRIES = 300
"""Some end before their moment has come, on a fast machine more of them: their kind has its next moment a little sooner."""
SEED = 20
KINDS = {"build": (0.05, 0.5), "prune": (0.08, 0.25), "publish": (0.1, 0.4)}
"""Seconds after the start between which the moment is, where starting Python takes YARD."""
PUBLISH = """
import os, sys, time
from cache import encoding
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.result import Result
from cache.store import Batch, NewFile
store = LmdbStore(sys.argv[1])
store.start_writer()
while True:
    data = os.urandom(30_000 + int.from_bytes(os.urandom(2), "big"))
    path = store.scratch("new")
    with open(path, "wb") as file:
        file.write(data)
    digest = Digest.of(data)
    record = encoding.canonical(Result(None, digest, 1.0, time.time(), "publisher").to_json())
    store.commit(Batch(files=(NewFile(digest, path),), records=(("results", encoding.key("publish", str(digest)), record),)))
"""


def churn(program: Program, number: int) -> Path:
    steps = "".join(f"RUN dd if=/dev/urandom of=/f{n} bs=64k count=4 2>/dev/null; echo {number % 7}\nCOPY f /c{n}\n" for n in range(4))
    return program.project(BASE + steps, {"f": f"{number % 5}" * 60_000}, name="churn")


def command(program: Program, kind: str, number: int) -> list[str]:
    if kind == "build":
        return program.command("build", churn(program, number), *program.base(), "--progress", "plain")
    if kind == "prune":
        return program.command("cache", "prune", "-f", "--filter", "project=churn")
    return [sys.executable, "-c", PUBLISH, str(program.store)]


def results(program: Program) -> set[str]:
    store = LmdbStore(str(program.store))
    try:
        return {key for key, _ in store.scan("results")}
    finally:
        store.close()


def test_a_kill_at_any_moment_leaves_a_whole_store(program: Program) -> None:
    dice = random.Random(SEED)
    kept = program.project(BASE + "RUN echo kept > /kept\n", name="kept")
    program.build(kept, "-t", "kept:1").ok()
    committed = results(program)
    killed = dict.fromkeys(KINDS, 0)
    pace = max(1.0, yard() / YARD)
    spans = {kind: (first * pace, last * pace) for kind, (first, last) in KINDS.items()}
    for number in range(TRIES):
        kind = list(KINDS)[number % len(KINDS)]
        before = results(program)
        process = subprocess.Popen(
            command(program, kind, number), cwd=ROOT, env=program.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        first, last = spans[kind]
        time.sleep(dice.uniform(first, last))
        process.kill()
        if process.wait() == -9:
            killed[kind] += 1
        else:
            spans[kind] = (first * 0.95, last * 0.95)
        wait_for(lambda: not processes_with(str(program.store)), 60)
        store = LmdbStore(str(program.store))
        verified = verify(store)
        after = {key for key, _ in store.scan("results")}
        left = [path.name for path in Path(store.directory, "runs").iterdir()]
        condemned = store.scan("condemned")
        store.close()
        assert verified.problems == (), f"after {kind} number {number}"
        assert left == [], "scratch space comes back"
        assert condemned == [], "and that of blobs without a record"
        assert committed <= after
        assert kind == "prune" or before <= after, "what was committed is there"
        if min(killed.values()) >= SHARE:
            break
    assert min(killed.values()) >= SHARE, killed
    assert program.build(kept, "-t", "kept:1").ok().executed == []
    program.build(churn(program, 0)).ok()
    assert program.build(churn(program, 0)).ok().executed == []
    program.call("cache", "prune", "-f").ok()
    left_blobs = sum(path.stat().st_size for path in (program.store / "blobs").rglob("*") if path.is_file())
    base = sum(os.path.getsize(path) for path in program.busybox.rglob("*") if path.is_file() and not path.is_symlink())
    assert left_blobs < base + 1_000_000, "what the named image needs, no more"
