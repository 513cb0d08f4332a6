"""Uploads, lists and names of hosts: what a registry may ask for, and what is refused."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from cache.errors import BuildgraphError
from cache.reference import InvalidReference
from cache.registry import Registry
from cache.registry_errors import RegistryError, RegistryUnreachable
from cache.transport import is_loopback
from tests.cache.images import pieces, sha256
from tests.cache.misbehaving import BLOB, FAST, GOOD, MANIFEST, TokenServer, flaky, misbehaving
from tests.cache.registry_server import Reply, Request, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


class Uploads:
    """A registry that fails the first PUTs and then takes a blob."""

    def __init__(self, location: str, *failures: Reply) -> None:
        self.location = location
        self.failures = list(failures)
        self.blobs: dict[str, bytes] = {}

    def __call__(self, request: Request) -> Reply:
        if request.method == "POST":
            return Reply(202, headers=(("Location", self.location),) if self.location else ())
        if self.failures:
            return self.failures.pop(0)
        self.blobs[request.query["digest"][0]] = request.body
        return Reply(201)


@pytest.mark.parametrize("location", ["/v2/a/uploads/1?_state=x%3D", "1?_state=x%3D", "/v2/a/uploads/1"])
def test_an_upload_starts_again_from_the_beginning(location: str) -> None:
    uploads = Uploads(location, Reply(503), Reply(404))
    opened: list[int] = []

    def chunks() -> Iterator[bytes]:
        opened.append(1)
        yield from (BLOB[:1_000_000], BLOB[1_000_000:])

    with misbehaving(uploads) as (server, registry):
        registry.upload_blob("a", sha256(BLOB), len(BLOB), chunks)
        assert uploads.blobs == {sha256(BLOB): BLOB}
        assert len(opened) == len(server.asked("PUT")) == len(server.asked("POST")) == 3
        if "_state" in location:
            assert server.asked("PUT")[0].query["_state"] == ["x="]


def test_an_upload_to_another_host_shows_it_no_credentials() -> None:
    storage_side = Uploads("")
    with serve(storage_side) as storage:
        tokens = TokenServer()

        def answer(request: Request) -> Reply:
            reply = tokens(request)
            away = (("Location", f"http://{storage.address}/put"),)
            return reply._replace(headers=away) if reply.status == 202 else reply

        with misbehaving(answer) as (_, registry):
            registry.upload_blob("a", sha256(BLOB), len(BLOB), pieces(BLOB))
        assert storage_side.blobs == {sha256(BLOB): BLOB}
        assert "authorization" not in storage.requests[0].headers


def test_an_upload_without_a_place_is_an_error() -> None:
    with misbehaving(Uploads("")) as (_, registry), pytest.raises(RegistryError, match="no place"):
        registry.upload_blob("a", sha256(b"x"), 1, pieces(b"x"))


def test_a_mount_that_is_refused_is_no_failure() -> None:
    for reply in (Reply(403), Reply(401), Reply(404), Reply(405)):
        with misbehaving(flaky(reply)) as (_, registry):
            assert not registry.mount_blob("a", sha256(b"x"), "b")
    begun = Reply(202, headers=(("Location", "/v2/a/blobs/uploads/7"),))
    with misbehaving(flaky(begun)) as (server, registry):
        assert not registry.mount_blob("a", sha256(b"x"), "b")
        assert [request.path for request in server.asked("DELETE")] == ["/v2/a/blobs/uploads/7"]


# lists, hosts, messages


def test_a_tag_list_has_pages() -> None:
    def answer(request: Request) -> Reply:
        if "last" in request.query:
            return Reply(200, b'{"tags": ["c"]}')
        return Reply(200, b'{"tags": ["a", "b"]}', (("Link", '</v2/x/tags/list?last=b&n=2>; rel="next"'),))

    with misbehaving(answer) as (_, registry):
        assert registry.list_tags("x") == ["a", "b", "c"]


def test_a_tag_list_without_end_has_one_and_stays_at_the_registry() -> None:
    for link, message in (("</v2/x/tags/list?last=a>; rel=next", ""), ("<http://other.example/>; rel=next", "another")):
        with misbehaving(flaky(Reply(200, b'{"tags": ["a"]}', (("Link", link),)))) as (server, registry):
            if message:
                with pytest.raises(RegistryError, match=message):
                    registry.list_tags("x")
            else:
                assert len(registry.list_tags("x")) == len(server.asked()) == 100


def test_nobody_listening_is_readable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for insecure in (None, True, False):
            with Registry(address, insecure=insecure, retry=FAST) as registry:
                with pytest.raises(RegistryUnreachable, match=f"{address}: connection refused"):
                    registry.get_manifest("a", "b")


def test_a_name_that_does_not_exist_is_readable() -> None:
    with Registry("registry.invalid", retry=FAST) as registry:
        with pytest.raises(RegistryUnreachable, match="cannot be resolved"):
            registry.get_manifest("a", "b")


def test_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    refuses = lambda request: Reply(501) if request.method == "CONNECT" else GOOD  # noqa: E731
    with serve(refuses) as proxy:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy.address)
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.address)
        with Registry("registry.invalid", insecure=True, retry=FAST) as registry:
            assert registry.get_manifest("a", "b")[0] == MANIFEST
        with Registry("registry.invalid", retry=FAST) as registry, pytest.raises(RegistryUnreachable, match="proxy"):
            registry.get_manifest("a", "b")


def test_a_registrys_own_words_are_shown_but_tamed() -> None:
    words = json.dumps({"errors": [{"code": "X", "message": "no\x1b[31m\n" + "y" * 9000}]}).encode()
    with misbehaving(flaky(Reply(400, words))) as (_, registry):
        with pytest.raises(RegistryError) as caught:
            registry.get_manifest("a", "b")
    assert "no [31m yyy" in caught.value.message
    assert len(caught.value.message) < 400


def test_only_real_names_become_paths() -> None:
    with Registry("registry.invalid") as registry:
        for repository in ("../x", "a?b", "A", "", "a/../b"):
            with pytest.raises(InvalidReference):
                registry.get_manifest(repository, "v1")
        with pytest.raises(BuildgraphError):
            registry.get_manifest("a", "v1/../../x")


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "[::1]"])
def test_loopback_is_known_by_its_spelling(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback(f"x{host.strip('[]')}.example")
    assert not is_loopback("10.0.0.1:5000")
