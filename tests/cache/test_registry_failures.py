"""The registry client, against a server that fails, lies or drips."""

from __future__ import annotations

import time
from collections.abc import Generator
from email.utils import formatdate

import pytest

from cache import oci
from cache.credentials import Credentials
from cache.errors import CorruptBlob
from cache.oci import Descriptor
from cache.registry_errors import RegistryError, RegistryUnreachable
from tests.cache.images import sha256
from tests.cache.misbehaving import BLOB, FAST, GOOD, MANIFEST, flaky, misbehaving
from tests.cache.registry_server import Reply, Request, serve


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(status: int) -> None:
    with misbehaving(flaky(Reply(status, b"x"), Reply(status), GOOD)) as (server, registry):
        assert registry.get_manifest("a", "b") == (MANIFEST, oci.OCI_MANIFEST, sha256(MANIFEST))
        assert len(server.asked()) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_lasting_failure_is_not(status: int) -> None:
    with misbehaving(flaky(Reply(status))) as (server, registry):
        with pytest.raises(RegistryError, match="a:b") as caught:
            registry.get_manifest("a", "b")
        assert caught.value.status == status
        assert len(server.asked()) == 1


def test_tries_have_an_end() -> None:
    with misbehaving(flaky(Reply(503))) as (server, registry):
        with pytest.raises(RegistryError, match="503"):
            registry.get_manifest("a", "b")
        assert len(server.asked()) == FAST.tries


@pytest.mark.parametrize("wait", ["1", "date"])
def test_the_wait_that_a_server_asks_for_is_kept(wait: str) -> None:
    wait = formatdate(time.time() + 2, usegmt=True) if wait == "date" else wait
    with misbehaving(flaky(Reply(429, headers=(("Retry-After", wait),)), GOOD)) as (_, registry):
        began = time.monotonic()
        registry.get_manifest("a", "b")
        # A date has whole seconds, of which the first may be nearly over.
        assert 0.5 <= time.monotonic() - began < 15


def test_a_wait_beyond_the_bound_is_a_failure_at_once() -> None:
    with misbehaving(flaky(Reply(429, headers=(("Retry-After", "3600"),)))) as (server, registry):
        with pytest.raises(RegistryError, match="limits") as caught:
            registry.get_manifest("a", "b")
        assert caught.value.retry_after == 3600
        assert len(server.asked()) == 1


def test_a_cut_manifest_is_fetched_again() -> None:
    with misbehaving(flaky(GOOD._replace(cut=10), GOOD)) as (_, registry):
        assert registry.get_manifest("a", "b")[0] == MANIFEST


def test_another_manifest_than_the_digest_says_is_corrupt() -> None:
    with misbehaving(flaky(GOOD)) as (_, registry), pytest.raises(CorruptBlob):
        registry.get_manifest("a", sha256(b"else"))


def test_a_manifest_has_a_bound() -> None:
    with misbehaving(flaky(Reply(200, b" " * (oci.MOST_MANIFEST + 1)))) as (_, registry):
        with pytest.raises(CorruptBlob, match="more than"):
            registry.get_manifest("a", "b")


def test_a_head_without_its_headers_becomes_a_get() -> None:
    with misbehaving(flaky(GOOD)) as (_, registry):
        assert registry.head_manifest("a", "b") == Descriptor(oci.OCI_MANIFEST, sha256(MANIFEST), len(MANIFEST))


def ranged(request: Request, cut: int | None) -> Reply:
    first = int(request.headers.get("range", "bytes=0-")[6:-1])
    where = (("Content-Range", f"bytes {first}-{len(BLOB) - 1}/{len(BLOB)}"),) if first else ()
    return Reply(206 if first else 200, BLOB[first:], where, cut)


def test_a_download_goes_on_where_it_broke() -> None:
    with misbehaving(lambda request: ranged(request, 900_000)) as (server, registry):
        assert b"".join(registry.open_blob("a", sha256(BLOB), len(BLOB))) == BLOB
        starts = [int(request.headers.get("range", "bytes=0-")[6:-1]) for request in server.asked()]
        assert len(starts) == 4
        assert starts == sorted(set(starts))


def test_a_server_without_ranges_is_read_again_from_the_start() -> None:
    with misbehaving(flaky(Reply(200, BLOB, cut=1_000_000), Reply(200, BLOB))) as (_, registry):
        assert b"".join(registry.open_blob("a", sha256(BLOB), len(BLOB))) == BLOB


def test_a_server_that_drips_has_an_end() -> None:
    with misbehaving(lambda request: ranged(request, 1000)) as (server, registry):
        with pytest.raises(RegistryUnreachable):
            b"".join(registry.open_blob("a", sha256(BLOB), len(BLOB)))
        assert len(server.asked()) == FAST.tries


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, BLOB[:-1] + b"?"),
        Reply(200, BLOB[:-1]),
        Reply(200, BLOB + b"?"),
        Reply(200, b""),
    ],
)
def test_other_bytes_are_corrupt(reply: Reply) -> None:
    with misbehaving(flaky(reply)) as (_, registry), pytest.raises(CorruptBlob):
        b"".join(registry.open_blob("a", sha256(BLOB), len(BLOB)))


def test_a_wrong_range_is_refused() -> None:
    wrong = Reply(206, BLOB[5:], (("Content-Range", "bytes 5-9/10"),))
    with misbehaving(flaky(Reply(200, BLOB, cut=1_000_000), wrong)) as (_, registry):
        with pytest.raises(RegistryError, match="another range"):
            b"".join(registry.open_blob("a", sha256(BLOB), len(BLOB)))


def test_a_download_that_nobody_finishes_leaves_no_connection() -> None:
    with misbehaving(flaky(Reply(200, BLOB))) as (_, registry):
        chunks = registry.open_blob("a", sha256(BLOB), len(BLOB))
        next(chunks)
        assert isinstance(chunks, Generator)
        chunks.close()
        assert b"".join(registry.open_blob("a", sha256(BLOB), len(BLOB))) == BLOB


def test_credentials_do_not_follow_a_redirect_to_another_host() -> None:
    with serve(lambda request: Reply(200, BLOB)) as storage:
        challenge = Reply(401, headers=(("WWW-Authenticate", 'Basic realm="x"'),))
        away = Reply(307, headers=(("Location", f"http://{storage.address}/signed?secret=1"),))

        def answer(request: Request) -> Reply:
            return away if "authorization" in request.headers else challenge

        with misbehaving(answer, credentials=Credentials("me", "secret")) as (_, registry):
            assert b"".join(registry.open_blob("a", sha256(BLOB), len(BLOB))) == BLOB
            assert registry.has_blob("a", sha256(BLOB))
        assert [request.path for request in storage.asked()] == ["/signed"]
        assert all("authorization" not in request.headers for request in storage.requests)


def test_a_login_asked_for_elsewhere_is_refused() -> None:
    thief = Reply(401, headers=(("WWW-Authenticate", 'Basic realm="x"'),))
    with serve(flaky(thief)) as other:
        away = Reply(307, headers=(("Location", f"http://{other.address}/signed?secret=1"),))
        with misbehaving(flaky(away), credentials=Credentials("me", "secret")) as (_, registry):
            with pytest.raises(RegistryError, match="login of its own") as caught:
                registry.get_manifest("a", "b")
            assert "signed" not in str(caught.value)
        assert all("authorization" not in request.headers for request in other.requests)


def test_redirects_have_an_end() -> None:
    with misbehaving(flaky(Reply(302, headers=(("Location", "/v2/again"),)))) as (server, registry):
        with pytest.raises(RegistryError, match="redirects"):
            registry.get_manifest("a", "b")
        assert len(server.asked()) == 6
