"""What is sealed for a lease: nobody else opens it, and nothing is lost, repeated or moved unseen."""

from __future__ import annotations

import pytest
from buildgraph.v1 import fleet_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import CorruptBlob
from worker.fleet.sealing import CHUNK, ClientSeal, LeaseSeal

SECRET = b"correct horse battery staple"


def pair(lease: str = "boot.1") -> tuple[LeaseSeal, ClientSeal]:
    worker = LeaseSeal(lease)
    return worker, ClientSeal(lease, worker.public_key)


def test_both_ends_read_what_the_other_sealed_and_nobody_sees_it() -> None:
    worker, client = pair()
    first, second = client.seal("secrets", SECRET), client.seal("secrets", b"")
    assert SECRET not in first.SerializeToString()
    assert (first.lease, first.channel, first.end) == ("boot.1", "secrets", False)
    assert [worker.open(first), worker.open(second)] == [SECRET, b""]
    assert client.open(worker.seal("ssh:default:1", b"question")) == b"question"
    assert worker.open(client.seal("ssh:default:1", b"answer")) == b"answer"
    assert len(first.data) == 32 + len(SECRET) + 16, "the key in front of the first message alone"
    assert len(second.data) == 16


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.binary(max_size=300)), max_size=30))
def test_any_talk_arrives_as_it_was_said(talk: list[tuple[bool, str, bytes]]) -> None:
    worker, client = pair()
    worker.open(client.seal("secrets", b"{}"))
    for to_worker, channel, data in talk:
        heard = worker.open(client.seal(channel, data)) if to_worker else client.open(worker.seal(channel, data))
        assert heard == data


def test_the_worker_can_say_nothing_before_it_knows_the_client() -> None:
    worker, _ = pair()
    with pytest.raises(CorruptBlob):
        worker.seal("ssh:default:1", b"x")


def test_channels_do_not_wait_for_each_other() -> None:
    worker, client = pair()
    worker.open(client.seal("secrets", b"{}"))
    lost = client.seal("ssh:a:1", b"never arrives")
    assert lost.data
    assert worker.open(client.seal("ssh:a:2", b"arrives")) == b"arrives"


def tampered(worker: LeaseSeal, client: ClientSeal) -> dict[str, list[pb.Sealed]]:
    """What goes wrong → messages, of which the last one must not open."""
    worker.open(client.seal("secrets", b"{}"))
    one, two, three = (client.seal("c", data) for data in (b"1", b"2", b"3"))
    changed = pb.Sealed(lease=two.lease, channel="c", data=two.data[:-1] + bytes([two.data[-1] ^ 1]))
    moved = pb.Sealed(lease=two.lease, channel="d", data=two.data)
    elsewhere = pb.Sealed(lease="boot.2", channel="c", data=one.data)
    back = worker.seal("c", b"mine")
    return {
        "repeated": [one, one], "lost": [one, three], "swapped": [two], "changed": [one, changed], "moved": [one, moved],
        "another lease": [elsewhere], "turned back": [back], "short": [pb.Sealed(lease=one.lease, channel="c", data=b"x")],
    }  # fmt: skip


@pytest.mark.parametrize("what", ["repeated", "lost", "swapped", "changed", "moved", "another lease", "turned back", "short"])
def test_what_was_tampered_with_does_not_open(what: str) -> None:
    worker, client = pair()
    *good, bad = tampered(worker, client)[what]
    for message in good:
        worker.open(message)
    with pytest.raises(CorruptBlob):
        worker.open(bad)


def test_a_forged_message_does_not_stop_the_real_one() -> None:
    worker, client = pair()
    real = client.seal("secrets", SECRET)
    _, stranger = pair()
    with pytest.raises(CorruptBlob):
        worker.open(stranger.seal("secrets", b"x"))
    with pytest.raises(CorruptBlob):
        worker.open(pb.Sealed(lease="boot.1", channel="secrets", data=bytes(80)))
    assert worker.open(real) == SECRET


def test_another_worker_and_another_lease_cannot_open_it() -> None:
    _, client = pair()
    message = client.seal("secrets", SECRET)
    with pytest.raises(CorruptBlob):
        LeaseSeal("boot.1").open(message)
    worker = LeaseSeal("boot.1")
    other = ClientSeal("boot.2", worker.public_key).seal("secrets", SECRET)
    other.lease = "boot.1"
    with pytest.raises(CorruptBlob):
        worker.open(other)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32)], ids=["none", "short", "long", "of small order"])
def test_a_key_that_is_none_is_refused(key: bytes) -> None:
    with pytest.raises(CorruptBlob):
        ClientSeal("boot.1", key)


def test_more_than_a_chunk_is_not_sealed_at_once() -> None:
    worker, client = pair()
    assert worker.open(client.seal("secrets", bytes(CHUNK))) == bytes(CHUNK)
    with pytest.raises(ValueError, match="too many"):
        client.seal("secrets", bytes(CHUNK + 1))
