"""The tree of a context: what belongs to it, what is not read a second time, and what goes wrong."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.entry import DIRECTORY, FIFO, FILE, SYMLINK
from cache.errors import EnvironmentProblem
from cache.lmdb_store import LmdbStore
from cache.store import Batch
from tests.worker.counting import Counting, Later, digest_of, scan
from tests.worker.deep import DEPTH, deep_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.context import ContextTree


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


# what is remembered


def test_an_unchanged_context_is_not_read_again(store: LmdbStore, context: Path) -> None:
    first = Later(context, store)
    digest = scan(first, store)
    assert sorted(first.hashed) == ["a", "b", "dir/c", "dir/deep/d"]
    second = Later(context, store)
    assert scan(second, store) == digest
    assert second.hashed == []
    assert second.records() == [], "and nothing is written again"


def test_only_a_changed_file_is_read(store: LmdbStore, context: Path) -> None:
    digest = scan(Later(context, store), store)
    (context / "dir/c").write_text("changed")
    second = Later(context, store)
    assert scan(second, store) != digest
    assert second.hashed == ["dir/c"]
    third = Later(context, store)
    scan(third, store)
    assert third.hashed == []


def test_a_change_that_keeps_size_and_mtime_is_noticed(store: LmdbStore, context: Path) -> None:
    digest = scan(Later(context, store), store)
    status = (context / "a").stat()
    time.sleep(0.02)  # more than a tick of the clock that older kernels take the time of a change from
    (context / "a").write_text("text of X")
    os.utime(context / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scan(Later(context, store), store) != digest, "by the change time"
    other = context / "other"
    other.write_text("text of Y")
    os.replace(other, context / "a")
    os.utime(context / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    tree = Later(context, store)
    scan(tree, store)
    assert tree.hashed == ["a"]


def test_a_file_touched_just_before_the_scan_is_read_again(store: LmdbStore, context: Path) -> None:
    """Git's racy rule: it could be written once more within the same tick of the clock."""
    first = Counting(context, store)
    digest = scan(first, store)
    second = Counting(context, store)
    assert scan(second, store) == digest
    assert sorted(second.hashed) == sorted(first.hashed)


def test_old_files_beside_a_fresh_one_are_still_known(store: LmdbStore, context: Path) -> None:
    """By their own numbers, when the directory as a whole may not be trusted."""
    scan(Later(context, store), store)
    (context / "fresh").write_text("fresh")
    future = time.time() + 2 * 3600
    os.utime(context / "fresh", (future, future))
    tree = Later(context, store)
    scan(tree, store)
    assert tree.hashed == ["fresh"]
    again = Later(context, store)
    scan(again, store)
    assert again.hashed == ["fresh"]


def test_what_one_scan_did_not_ask_for_stays_known(store: LmdbStore, context: Path) -> None:
    scan(Later(context, store), store)
    (context / "a").write_text("changed")
    part = Later(context, store)
    assert [entry.path for entry, _ in part.walk("a")] == ["a"]
    store.commit(Batch(records=tuple(("stats", key, value) for key, value in part.records())))
    whole = Later(context, store)
    scan(whole, store)
    assert "dir/c" not in whole.hashed
    assert set(whole.hashed) <= {"a"}


def test_other_ignore_rules_know_nothing_of_each_other(store: LmdbStore, context: Path) -> None:
    digest = scan(Later(context, store), store)
    assert scan(Later(context, store, ("b",)), store) != digest
    tree = Later(context, store)
    assert scan(tree, store) == digest
    assert tree.hashed == []


def test_a_file_in_a_very_long_path_is_remembered_too(store: LmdbStore, context: Path) -> None:
    deep = context.joinpath(*["d" * 100] * 8)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    scan(Later(context, store), store)
    tree = Later(context, store)
    scan(tree, store)
    assert tree.hashed == []


@pytest.mark.alone
def test_a_second_scan_of_many_files_only_stats(store: LmdbStore, tmp_path: Path) -> None:
    for number in range(200):
        directory = tmp_path / f"many/{number:03}"
        directory.mkdir(parents=True)
        for name in range(100):
            os.close(os.open(f"{directory}/{name}", os.O_CREAT | os.O_WRONLY))
    digest = scan(Later(tmp_path / "many", store), store)
    started = time.process_time()
    tree = Later(tmp_path / "many", store)
    assert scan(tree, store) == digest
    assert tree.hashed == []
    assert time.process_time() - started < 2, "0.1 s on the machine that this was written on"


# what belongs to it


def listed(tree: ContextTree, path: str = "") -> list[str]:
    return [entry.path for entry, _ in tree.walk(path)]


def test_walk_gives_every_entry_sorted(store: LmdbStore, context: Path) -> None:
    (context / "link").symlink_to("/etc/passwd")
    os.mkfifo(context / "pipe", 0o644)
    entries = [entry for entry, _ in Counting(context, store).walk("")]
    assert [(entry.path, entry.kind) for entry in entries] == [
        ("", DIRECTORY), ("a", FILE), ("b", FILE), ("dir", DIRECTORY), ("dir/c", FILE), ("dir/deep", DIRECTORY), ("dir/deep/d", FILE),
        ("link", SYMLINK), ("pipe", FIFO),
    ]  # fmt: skip
    assert listed(Counting(context, store), "dir/c") == ["dir/c"]
    assert listed(Counting(context, store), "nothing") == []
    assert listed(Counting(context, store), "a/b") == []


def test_sockets_are_not_part_of_it(store: LmdbStore, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(store, context)
    monkeypatch.chdir(context)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        assert "s" not in listed(Counting(context, store))
        assert digest_of(store, context) == before


def test_ignored_files_and_exceptions_below_ignored_directories(store: LmdbStore, context: Path) -> None:
    assert listed(Counting(context, store, ("dir", "!dir/deep/d"))) == ["", "a", "b", "dir", "dir/deep", "dir/deep/d"]
    assert listed(Counting(context, store, ("dir", "!dir/deep/nothing"))) == ["", "a", "b"]
    assert listed(Counting(context, store, ("*", "!b"))) == ["", "b"]
    assert Counting(context, store, ("*", "!b")).resolve("a").entry is None
    assert Counting(context, store, ("dir",)).listdir("") == ["a", "b"]


def test_ignored_files_are_not_even_read(store: LmdbStore, context: Path) -> None:
    tree = Counting(context, store, ("dir", "!dir/c"))
    tree.digest("")
    assert sorted(tree.hashed) == ["a", "b", "dir/c"]
    (context / "unreadable").mkdir(mode=0)
    if os.geteuid() != 0:
        Counting(context, store, ("unreadable",)).digest("")


def test_links_do_not_lead_out(store: LmdbStore, context: Path, tmp_path: Path) -> None:
    """I5: an absolute link starts at the context's root, `..` stops there."""
    (tmp_path / "secret").write_text("secret")
    (context / "up").symlink_to("../secret")
    (context / "absolute").symlink_to(str(tmp_path / "secret"))
    (context / "inside").symlink_to("/dir/c")
    (context / "folder").symlink_to("../../../dir")
    (context / "out").symlink_to(tmp_path)
    tree = Counting(context, store)
    assert tree.resolve("up").entry is None
    assert tree.resolve("absolute").entry is None
    assert tree.resolve("out/secret").entry is None
    assert tree.resolve("inside").path == "dir/c"
    assert tree.resolve("folder/deep/d").path == "dir/deep/d"
    assert tree.resolve("dir/../../../a").path == "a"


def test_a_file_is_read_by_its_own_bytes(store: LmdbStore, context: Path) -> None:
    (context / "big").write_bytes(b"x" * (17 << 20))
    tree = Counting(context, store)
    for path in ("a", "big"):
        entry = next(iter(tree.walk(path)))[0]
        with tree.data(entry, 0) as (fd, offset):
            assert os.pread(fd, entry.size, offset) == (context / path).read_bytes()
        from blake3 import blake3

        assert entry.digest == blake3((context / path).read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_deep_tree(store: LmdbStore, tmp_path: Path) -> None:
    """Deeper than Python recurses, and with a path longer than the kernel takes at once."""
    with deep_tree(tmp_path) as deepest:
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=deepest))
        tree = Counting(tmp_path, store, ("store",))
        assert len(listed(tree)) == DEPTH + 2
        assert tree.digest("") != digest_of(store, tmp_path, ("store", "**/file"))
        ignoring = Counting(tmp_path, store, ("store", "dddd", "!**/file"))
        assert len(listed(ignoring)) == DEPTH + 2
        assert tree.resolve("/".join(["dddd"] * DEPTH)).entry is not None


def test_names_that_are_not_utf8(store: LmdbStore, context: Path) -> None:
    raw = os.fsencode(context) + b"/\xff\xfe"
    os.mkdir(raw)
    Path(os.fsdecode(raw + b"/f")).write_text("x")
    tree = Later(context, store)
    assert "\udcff\udcfe/f" in listed(tree)
    scan(tree, store)
    again = Later(context, store)
    scan(again, store)
    assert again.hashed == []


# what goes wrong


def test_a_context_that_is_not_there(store: LmdbStore, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot read the context"):
        Counting(tmp_path / "nothing", store)
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot read the context"):
        Counting(tmp_path / "file", store)


def test_a_file_that_goes_away_meanwhile_is_an_error(store: LmdbStore, context: Path) -> None:
    tree = Counting(context, store)
    tree.listdir("")
    (context / "a").unlink()
    with pytest.raises(EnvironmentProblem, match="cannot read a in the context"):
        tree.digest("")


def test_a_file_that_becomes_a_link_meanwhile_is_not_followed(store: LmdbStore, context: Path, tmp_path: Path) -> None:
    """I5."""
    (tmp_path / "secret").write_text("secret")
    tree = Counting(context, store)
    tree.listdir("")
    (context / "a").unlink()
    (context / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(EnvironmentProblem, match="cannot read a"):
        tree.digest("")


def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    """In a child without root's rights."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "a").write_text("x")
    (directory / "a").chmod(0)
    store = LmdbStore(str(tmp_path / "store"))
    readable, writable = os.pipe()
    tree = Counting(directory, store)
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            tree.digest("")
        except EnvironmentProblem as error:
            os.write(writable, error.message.encode())
        finally:
            os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    assert os.read(readable, 1000) == b"cannot read a in the context: Permission denied"
    os.close(readable)
    store.close()
