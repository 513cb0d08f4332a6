"""What goes wrong with a store: a full disk, places that cannot be one, other versions."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import lmdb
import pytest

from cache.digest import Digest
from cache.errors import StoreProblem
from cache.lmdb_store import INLINE_LIMIT, LmdbStore
from cache.store import Batch
from tests.cache.stored import ROOT, blob, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 filesystem of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a filesystem")
    image, target = tmp_path / "image", tmp_path / "mounted"
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    target.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, target], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"this machine has no loop devices: {mounted.stderr.strip()}")
    yield target
    subprocess.run(["umount", "-l", target], check=True)


@pytest.mark.parametrize("threaded", [False, True], ids=["caller-writes", "writer-thread"])
@pytest.mark.parametrize("size", [20_000, 200_000], ids=["in-the-database", "as-files"])
def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path, size: int, threaded: bool) -> None:
    store = LmdbStore(str(small_disk / "store"))
    if threaded:
        store.start_writer()
    kept: list[Digest] = []

    def fill() -> None:
        while len(kept) < 1000:
            data = os.urandom(size)
            record = ("results", f"{len(kept):05}", str(Digest.of(data)).encode())
            store.commit(Batch(blobs=blob(data), records=(record,)))
            kept.append(Digest.of(data))

    with pytest.raises(StoreProblem, match=r"No space left") as raised:
        fill()
    assert "free some space" in raised.value.hint
    assert kept
    with pytest.raises(StoreProblem):
        store.submit(Batch())
    with pytest.raises(StoreProblem):
        store.close()
    again = LmdbStore(str(small_disk / "store"))
    assert check(again) == len(kept)
    again.close()


def test_a_store_without_a_place_for_scratch_fails_instead_of_hanging(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path))
    (tmp_path / "runs").write_text("a file stands where the directory should be")
    store.start_writer()
    future = store.submit(Batch(blobs=blob(b"x" * (INLINE_LIMIT + 1))))
    with pytest.raises(StoreProblem, match="cannot write to the store"):
        future.result(10)
    with pytest.raises(StoreProblem):
        store.close()


def test_a_store_of_another_version_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    LmdbStore(str(tmp_path)).close()
    environment = lmdb.open(str(tmp_path), max_dbs=20)
    with environment.begin(write=True) as transaction:
        transaction.put(b"format", b"999")
    environment.close()
    with pytest.raises(StoreProblem, match="version") as raised:
        LmdbStore(str(tmp_path))
    assert "--store" in raised.value.hint


@pytest.mark.parametrize("what", ["file", "below-a-file", "garbage"])
def test_a_place_that_cannot_be_a_store_is_named(tmp_path: Path, what: str) -> None:
    place = tmp_path / "place"
    if what == "garbage":
        place.mkdir()
        (place / "data.mdb").write_bytes(b"no database" * 1000)
    else:
        place.write_text("")
    directory = place / "store" if what == "below-a-file" else place
    with pytest.raises(StoreProblem, match=f"cannot open the store {directory}"):
        LmdbStore(str(directory))


def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    """As a user who may not write there; root may write anywhere, so a process without that right asks."""
    LmdbStore(str(tmp_path / "store")).close()
    code = (
        "import os, sys\nfrom cache.lmdb_store import LmdbStore\nfrom cache.errors import StoreProblem\n"
        "if os.geteuid() == 0:\n    os.setresuid(65534, 65534, 65534)\n"
        "try:\n    LmdbStore(sys.argv[1])\nexcept StoreProblem as error:\n    print(error.message, '|', error.hint)\n"
    )
    tmp_path.chmod(0o755)
    for path in tmp_path.parents:
        if path.stat().st_uid == os.getuid() and path.name.startswith("pytest-"):
            path.chmod(0o755)
    (tmp_path / "store").chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store" / "new")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (tmp_path / "store").chmod(0o755)
    assert "Permission denied" in done.stdout, done.stderr
    assert "--store" in done.stdout
