"""Blobs and results as builds leave them in a store, and another process that has the same store open."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cache import encoding
from cache.blob_files import INLINE_LIMIT
from cache.digest import Digest
from cache.result import Result
from cache.store import Batch, NewFile
from cache.usage import Usage, project_key, project_record, result_key

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from cache.prune import Pruned

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL, LARGE = b"small", b"large" * INLINE_LIMIT


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


def has_result(store: LmdbStore, name: str) -> bool:
    return store.get("results", content(name)) is not None


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


def blob(data: bytes) -> dict[Digest, bytes]:
    return {Digest.of(data): data}


def scratch_file(store: LmdbStore, data: bytes) -> NewFile:
    path = store.scratch("new")
    Path(path).write_bytes(data)
    return NewFile(Digest.of(data), path)


def check(store: LmdbStore) -> int:
    """I3: each record's blobs are there and say what their names say."""
    records = store.scan("results")
    for _, value in records:
        for text in value.decode().split():
            digest = Digest.parse(text)
            assert Digest.of(store.read_blob(digest)) == digest
    return len(records)
