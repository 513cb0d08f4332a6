"""The registry client, against Debian's docker-registry and against a server that misbehaves."""

import base64
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from cache import oci
from cache.credentials import Credentials
from cache.errors import BuildgraphError, CorruptBlob, exit_code
from cache.oci import Descriptor
from cache.reference import InvalidReference
from cache.registry import Registry
from cache.registry_auth import parse_challenges
from cache.registry_errors import RegistryDenied, RegistryError, RegistryNotFound, RegistryUnreachable
from cache.transport import RetryPolicy, is_loopback
from tests.cache.images import Image, make_image, pieces, sha256
from tests.cache.registry_server import Reply, Request, Server, serve

FAST = RetryPolicy(tries=4, first=0.005, most=0.02, most_asked=2.0)
BCRYPT = "$2b$04$eYSPDeg9h3mXEjQRuDxrye4dCXEnHWNNp4wFkNwuBrObNe5o7yOp2"
"""Of the password «secret»; making one takes a library that the project does not need."""


@contextlib.contextmanager
def docker_registry(
    directory: Path, extra: dict[str, Any] | None = None, tls: dict[str, Any] | None = None
) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"} | (tls or {}),
    } | (extra or {})
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    # One setting of the environment is enough to change the registry's configuration.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("REGISTRY_", "OTEL_"))}
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log, env=environ
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((directory / "log").read_text())
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "htpasswd").write_text(f"me:{BCRYPT}\n")
    auth = {"auth": {"htpasswd": {"realm": "here", "path": str(directory / "htpasswd")}}}
    with docker_registry(directory, auth) as found:
        yield found


def push(registry: Registry, repository: str, image: Image, tag: str) -> None:
    for digest, data in image.blobs.items():
        registry.upload_blob(repository, digest, len(data), pieces(data[:9], data[9:]))
    assert registry.put_manifest(repository, tag, image.manifest, oci.OCI_MANIFEST) == image.digest


# Against the real registry


def test_what_is_pushed_is_pulled(address: str) -> None:
    image = make_image()
    with Registry(address) as registry:
        push(registry, "team/app", image, "v1")
        for reference in ("v1", image.digest):
            assert registry.get_manifest("team/app", reference) == (image.manifest, oci.OCI_MANIFEST, image.digest)
            assert registry.head_manifest("team/app", reference) == Descriptor(
                oci.OCI_MANIFEST, image.digest, len(image.manifest)
            )
        for digest, data in image.blobs.items():
            assert registry.has_blob("team/app", digest)
            assert b"".join(registry.open_blob("team/app", digest, len(data))) == data
        assert registry.list_tags("team/app") == ["v1"]


def test_skopeo_reads_what_we_push_and_we_what_it_pushes(address: str, tmp_path: Path) -> None:
    with Registry(address) as registry:
        push(registry, "skopeo/ours", make_image("ours"), "x")
        target = f"docker://{address}/skopeo/theirs:y"
        skopeo = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format=v2s2"]
        subprocess.run([*skopeo, f"docker://{address}/skopeo/ours:x", target], check=True, capture_output=True)
        data, kind, _ = registry.get_manifest("skopeo/theirs", "y")
        assert kind == oci.DOCKER_MANIFEST
        manifest = oci.parse_manifest(data, kind)
        assert isinstance(manifest, oci.Manifest)
        assert oci.compression(manifest.layers[0]) == "gzip"


def test_an_index_and_a_mount(address: str) -> None:
    image = make_image("mounted")
    with Registry(address) as registry:
        push(registry, "mount/from", image, "v1")
        for digest in image.blobs:
            assert registry.mount_blob("mount/to", digest, "mount/from")
            assert registry.has_blob("mount/to", digest)
        assert not registry.mount_blob("mount/to", sha256(b"nowhere"), "mount/from")
        registry.put_manifest("mount/to", image.digest, image.manifest, oci.OCI_MANIFEST)
        index = oci.Index((image.descriptor(),)).to_json()
        registry.put_manifest("mount/to", "all", index, oci.OCI_INDEX)
        assert registry.get_manifest("mount/to", "all")[:2] == (index, oci.OCI_INDEX)


def test_many_threads_share_one_registry(address: str) -> None:
    blobs = {sha256(data): data for data in (bytes([number]) * 700_000 for number in range(12))}
    with Registry(address) as registry, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda item: registry.upload_blob("many", item[0], 700_000, pieces(item[1])), blobs.items()))
        pulled = pool.map(lambda digest: b"".join(registry.open_blob("many", digest, 700_000)), blobs)
        assert list(pulled) == list(blobs.values())


def test_an_empty_blob_goes_both_ways(address: str) -> None:
    with Registry(address) as registry:
        registry.upload_blob("empty", sha256(b""), 0, pieces())
        assert list(registry.open_blob("empty", sha256(b""), 0)) == []


def test_what_is_not_there_is_none_or_named(address: str) -> None:
    with Registry(address) as registry:
        assert registry.head_manifest("team/app", "absent") is None
        assert not registry.has_blob("team/app", sha256(b"absent"))
        with pytest.raises(RegistryNotFound, match=f"{address}/none:absent") as caught:
            registry.get_manifest("none", "absent")
        assert (caught.value.host, caught.value.repository, caught.value.status) == (address, "none", 404)
        assert exit_code(caught.value) == 5
        with pytest.raises(RegistryNotFound):
            list(registry.open_blob("none", sha256(b"absent"), 6))


def test_a_blob_pushed_under_a_wrong_name_is_corrupt(address: str) -> None:
    with Registry(address, retry=FAST) as registry:
        with pytest.raises(CorruptBlob, match="another digest"):
            registry.upload_blob("wrong", sha256(b"x"), 5, pieces(b"other"))
        for chunks in ([b"shor"], [b"long", b"er"]):
            with pytest.raises(CorruptBlob, match="does not have 5 bytes"):
                registry.upload_blob("wrong", sha256(b"x"), 5, pieces(*chunks))


def test_a_blob_that_cannot_be_read_is_no_trouble_of_the_registry(address: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise OSError(5, "Input/output error")

    with Registry(address, retry=FAST) as registry, pytest.raises(BuildgraphError, match="reading it failed"):
        registry.upload_blob("unreadable", sha256(b"x"), 5, chunks)


def test_a_login_is_found_only_when_it_is_asked_for(address: str, guarded_address: str) -> None:
    asked: list[str] = []

    def find(host: str) -> Credentials:
        asked.append(host)
        return Credentials("me", "secret")

    with Registry(address, credentials=find) as open_registry:
        open_registry.has_blob("any", sha256(b"x"))
    assert asked == []
    with Registry(guarded_address, credentials=find) as registry:
        push(registry, "private/app", make_image(), "v1")
        assert registry.list_tags("private/app") == ["v1"]
    assert asked == [guarded_address]


def test_a_missing_or_wrong_login_says_what_to_do(guarded_address: str) -> None:
    for credentials in (None, Credentials("me", "Wr0ng!"), Credentials("nobody", "Wr0ng!")):
        with Registry(guarded_address, credentials=credentials) as registry:
            for _ in range(2):
                with pytest.raises(RegistryDenied) as caught:
                    registry.get_manifest("private/app", "v1")
                assert f"docker login {guarded_address}" in caught.value.hint
                assert "Wr0ng" not in caught.value.message + caught.value.hint


# Against a server that misbehaves


def flaky(*replies: Reply) -> Callable[[Request], Reply]:
    """Answer the replies in turn, the last one for ever; the look for TLS is not counted."""
    left = list(replies)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


@contextlib.contextmanager
def misbehaving(answer: Callable[[Request], Reply], **options: Any) -> Iterator[tuple[Server, Registry]]:
    with serve(answer) as server, Registry(server.address, **{"retry": FAST} | options) as registry:
        yield server, registry


MANIFEST = make_image().manifest
GOOD = Reply(200, MANIFEST, (("Content-Type", f"{oci.OCI_MANIFEST}; charset=utf-8"),))


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
        assert 0.9 <= time.monotonic() - began < 3


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


BLOB = hashlib.shake_128(b"blob").digest(3_000_000)


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


# Tokens


class TokenServer:
    """A registry with docker's token authentication; each token is good for some uses."""

    def __init__(self, realm: str = "", uses: int = 100, expires: int = 300) -> None:
        self.realm = realm
        self.uses = uses
        self.expires = expires
        self.made = 0
        self.left: dict[str, int] = {}
        self.port = 0

    def __call__(self, request: Request) -> Reply:
        if request.path == "/token":
            self.made += 1
            self.left[f"Bearer token-{self.made}"] = self.uses
            answer = {"access_token": f"token-{self.made}", "expires_in": self.expires}
            return Reply(200, json.dumps(answer).encode())
        sent = request.headers.get("authorization", "")
        if self.left.get(sent, 0) < 1:
            realm = self.realm or f"http://{request.headers['host']}/token"
            header = f'Bearer realm="{realm}",service="the, registry",scope="repository:other:delete",error="x"'
            return Reply(401, headers=(("WWW-Authenticate", header),))
        self.left[sent] -= 1
        if request.method == "POST":
            return Reply(202, headers=(("Location", "/v2/upload?state=1"),))
        return Reply(201) if request.method == "PUT" else GOOD


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


# Uploads


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


# Lists, hosts, messages


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


def test_plain_http_is_refused_when_it_must_be_secure(address: str) -> None:
    with Registry(address, insecure=False, retry=FAST) as registry:
        with pytest.raises(RegistryUnreachable, match="does not speak TLS"):
            registry.get_manifest("a", "b")


@pytest.mark.filterwarnings("default::urllib3.exceptions.InsecureRequestWarning")
def test_a_certificate_of_ones_own_needs_leniency(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "cert")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, "-subj", "/CN=x", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with docker_registry(tmp_path, tls={"tls": {"certificate": certificate, "key": key}}) as address:
        with Registry(address) as registry:
            push(registry, "a", make_image(), "v1")
        with Registry(address, insecure=False) as registry:
            with pytest.raises(RegistryUnreachable, match="certificate is not trusted"):
                registry.get_manifest("a", "v1")


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
