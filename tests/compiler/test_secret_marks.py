"""Marks of secrets: the same for the same value on one store, and of no use to anybody else."""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cache.errors import EnvironmentProblem, StoreProblem, UsageError
from cache.platform import Platform
from compiler.dockerfile.policy import NO_POLICY, Policy
from compiler.options import BuildOptions, SecretSource
from compiler.secret_marks import ABSENT, KEY_FILE, SecretMarks, marks_of

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_mark_stands_for_the_value_on_one_store(tmp_path: Path) -> None:
    mine, again = SecretMarks(str(tmp_path)), SecretMarks(str(tmp_path))
    (tmp_path / "other").mkdir()
    other = SecretMarks(str(tmp_path / "other"))
    mark = mine.mark("a", b"value")
    assert again.mark("a", b"value") == mark
    assert len({mark, mine.mark("a", b"value "), mine.mark("a", b""), mine.mark("b", b"value"), other.mark("a", b"value")}) == 5
    assert len(bytes.fromhex(mark)) == 32


def test_a_mark_is_made_with_the_key_and_is_no_plain_hash(tmp_path: Path) -> None:
    mark = SecretMarks(str(tmp_path)).mark("a", b"value")
    key = (tmp_path / KEY_FILE).read_bytes()
    assert len(key) == 32
    assert mark == hmac.new(key, b"a\0value", hashlib.sha256).hexdigest()
    assert mark not in {hashlib.sha256(text).hexdigest() for text in (b"value", b"a\0value")}


def test_no_secret_is_absent_and_needs_no_key(tmp_path: Path) -> None:
    assert SecretMarks(str(tmp_path)).mark("a", None) == ABSENT
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_can_read_the_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        SecretMarks(str(tmp_path)).mark("a", b"value")
    finally:
        os.umask(before)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o7777 == 0o600


def test_builds_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    """Each process waits for the end of its input, so that all make their mark in the same moment."""
    code = (
        "import sys\nfrom compiler.secret_marks import SecretMarks\nmarks = SecretMarks(sys.argv[1])\n"
        "sys.stdout.write('ready\\n')\nsys.stdout.flush()\nsys.stdin.read()\nsys.stdout.write(marks.mark('a', b'value'))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    found = set()
    for process in running:
        assert process.stdout is not None
        found.add(process.stdout.read())
        assert process.wait(20) == 0
        process.stdout.close()
    assert found == {SecretMarks(str(tmp_path)).mark("a", b"value")}


def test_a_key_that_a_killed_build_left_empty_is_filled(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).touch(0o600)
    assert SecretMarks(str(tmp_path)).mark("a", b"v") == SecretMarks(str(tmp_path)).mark("a", b"v")


@pytest.mark.parametrize("size", [1, 31, 33, 5000])
def test_a_damaged_key_is_an_error_with_advice(tmp_path: Path, size: int) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"x" * size)
    with pytest.raises(StoreProblem, match="damaged") as caught:
        SecretMarks(str(tmp_path)).mark("a", b"value")
    assert "remove the file" in caught.value.hint
    (tmp_path / KEY_FILE).unlink()
    assert SecretMarks(str(tmp_path)).mark("a", b"value")


def test_a_key_is_not_followed_out_of_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"x" * 32)
    (store / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreProblem, match="cannot keep the key"):
        SecretMarks(str(store)).mark("a", b"value")


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreProblem, match="No such file"):
        SecretMarks(str(tmp_path / "gone")).mark("a", b"value")


def options(*secrets: SecretSource) -> BuildOptions:
    return BuildOptions(Platform.here(), secrets=secrets)


def test_the_marks_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    monkeypatch.setenv("SECRET_OF_THE_TEST", "from a variable")
    store = tmp_path / "store"
    store.mkdir()
    wanted = options(SecretSource("z", env="SECRET_OF_THE_TEST"), SecretSource("a", file=str(tmp_path / "file")), SecretSource("unused"))
    marks = SecretMarks(str(store))
    found = marks_of(Policy(secret_in_key=("z", "missing", "a")), wanted, str(store))
    assert found == [["a", marks.mark("a", b"from a file")], ["missing", ABSENT], ["z", marks.mark("z", b"from a variable")]]


def test_a_step_without_the_comment_reads_no_secret(tmp_path: Path) -> None:
    assert marks_of(NO_POLICY, options(SecretSource("a", file=str(tmp_path / "gone"))), str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    policy = Policy(secret_in_key=("a",))
    with pytest.raises(EnvironmentProblem, match="cannot read"):
        marks_of(policy, options(SecretSource("a", file=str(tmp_path / "gone"))), str(tmp_path))
    with pytest.raises(UsageError, match="is not set"):
        marks_of(policy, options(SecretSource("a", env="A_VARIABLE_THAT_IS_NOT_SET")), str(tmp_path))
