"""A worker's key: made once, kept from others, and what its signatures say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cache.errors import EnvironmentProblem
from worker.fleet.identity import Identity, fingerprint, verify

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("buildgraph.v1 outcome", "team", "ab" * 32, b"\x01\x02")


def test_the_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "worker.key"
    made = Identity.load(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    again = Identity.load(str(path))
    assert again.public == made.public
    assert len(made.public) == 32
    assert verify(made.public, again.sign(PARTS), PARTS)
    assert os.listdir(tmp_path) == ["worker.key"]
    assert Identity.load(str(tmp_path / "other.key")).public != made.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "worker.key"
    Identity.load(str(path))
    path.chmod(mode)
    with pytest.raises(EnvironmentProblem, match="can be read by others"):
        Identity.load(str(path))


@pytest.mark.parametrize("content", [b"", b"0" * 63, b"g" * 64, b"0" * 64 + b"\n\n", bytes(32)])
def test_what_is_no_key_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "worker.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(EnvironmentProblem, match="does not hold a worker's key"):
        Identity.load(str(path))
    assert path.read_bytes() == content


def test_a_link_in_place_of_the_key_is_not_followed(tmp_path: Path) -> None:
    Identity.load(str(tmp_path / "real.key"))
    (tmp_path / "worker.key").symlink_to("real.key")
    with pytest.raises(EnvironmentProblem, match="cannot keep the worker's key"):
        Identity.load(str(tmp_path / "worker.key"))


def test_a_signature_is_good_for_just_what_was_signed(tmp_path: Path) -> None:
    mine, other = Identity.load(str(tmp_path / "a.key")), Identity.load(str(tmp_path / "b.key"))
    signature = mine.sign(PARTS)
    assert verify(mine.public, signature, PARTS)
    assert verify(mine.public, signature, [*PARTS[:3], "0102"]), "bytes are signed as hex"
    assert not verify(other.public, signature, PARTS)
    assert not verify(mine.public, signature, PARTS[:3])
    assert not verify(mine.public, signature, ["buildgraph.v1 outcome", "teamab", *PARTS[2:]])
    assert not verify(mine.public, signature[:-1] + bytes([signature[-1] ^ 1]), PARTS)
    assert not verify(b"short", signature, PARTS)
    assert not verify(mine.public, b"", PARTS)


def test_the_fingerprint_is_what_people_write() -> None:
    assert fingerprint(bytes(32)) == "ed25519:" + "A" * 43
