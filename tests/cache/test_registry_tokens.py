"""The registry client, where a token server stands between."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cache.credentials import Credentials
from cache.errors import CorruptBlob
from cache.registry_auth import parse_challenges
from cache.registry_errors import RegistryDenied
from tests.cache.images import pieces, sha256
from tests.cache.misbehaving import TokenServer, flaky, misbehaving
from tests.cache.registry_server import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable


def test_one_token_serves_many_requests() -> None:
    with misbehaving(TokenServer()) as (server, registry):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: registry.get_manifest("a/b", f"v{number}"), range(20)))
        (asked,) = server.asked("GET", "/token")
        assert asked.query == {"service": ["the, registry"], "scope": ["repository:a/b:pull"]}
        assert "authorization" not in asked.headers
        registry.get_manifest("c", "v1")
        assert len(server.asked("GET", "/token")) == 2


def test_a_token_that_is_used_up_is_renewed() -> None:
    with misbehaving(TokenServer(uses=2)) as (server, registry):
        for _ in range(6):
            registry.get_manifest("a", "b")
        assert len(server.asked("GET", "/token")) == 3


def test_a_refused_token_is_not_renewed_for_ever() -> None:
    with misbehaving(TokenServer(uses=0)) as (server, registry):
        with pytest.raises(RegistryDenied, match="a:b") as caught:
            registry.get_manifest("a", "b")
        assert "docker login" in caught.value.hint
        assert len(server.asked("GET", "/token")) == 1


def test_passwords_and_identity_tokens_go_to_the_token_server_only() -> None:
    for credentials in (Credentials("me", "pass:word"), Credentials(identity_token="refresh-me")):
        with misbehaving(TokenServer(), credentials=credentials) as (server, registry):
            registry.upload_blob("a", sha256(b"x"), 1, pieces(b"x"))
            (asked,) = server.asked(path="/token")
            if credentials.password:
                assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"me:pass:word").decode()
                assert asked.query["scope"] == ["repository:a:pull,push"]
            else:
                assert b"refresh_token=refresh-me" in asked.body
                assert b"grant_type=refresh_token" in asked.body
            others = [request for request in server.requests if request.path != "/token"]
            assert all(request.headers.get("authorization", "Bearer").startswith("Bearer") for request in others)


def test_a_token_server_in_clear_gets_no_password() -> None:
    answer = TokenServer(realm="http://auth.example/token")
    with misbehaving(answer, credentials=Credentials("me", "secret")) as (_, registry):
        with pytest.raises(RegistryDenied, match="without https"):
            registry.get_manifest("a", "b")


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "https://[", "//x", "ftp://127.0.0.1/"])
def test_a_realm_that_is_no_url_is_refused(realm: str) -> None:
    reply = Reply(401, headers=(("WWW-Authenticate", f'Bearer realm="{realm}"'),))
    with misbehaving(flaky(reply)) as (_, registry), pytest.raises(RegistryDenied):
        registry.get_manifest("a", "b")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"token": 5}', b'{"token": "a\\r\\nEvil: 1"}', b'{"token": "\\u00e4"}']
)
def test_a_token_that_is_none_is_refused(body: bytes) -> None:
    tokens = TokenServer()
    answer: Callable[[Request], Reply] = lambda one: Reply(200, body) if one.path == "/token" else tokens(one)  # noqa: E731
    with misbehaving(answer) as (_, registry), pytest.raises((RegistryDenied, CorruptBlob)):
        registry.get_manifest("a", "b")


def test_challenges_are_read_as_the_rfc_says() -> None:
    found = parse_challenges(['Basic realm="a, b", Bearer realm="x\\"y",service=z , Negotiate', "Digest"])
    assert [challenge.scheme for challenge in found] == ["basic", "bearer", "negotiate", "digest"]
    assert found[0].parameters == {"realm": "a, b"}
    assert found[1].parameters == {"realm": 'x"y', "service": "z"}
    assert parse_challenges(["", ",,", "===", '"']) == []
