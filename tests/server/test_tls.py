"""TLS: certificates from files that are read again, and client certificates that stand for tokens."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from authority import Authority
from serving import Client, Refusal, Serving, call, make_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Serve


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    directory = tmp_path / "tls"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    made: list[Client] = []
    yield made
    for each in made:
        each.close()


def test_a_client_that_trusts_the_authority_talks_by_tls(
    serve: Serve, authority: Authority, tmp_path: Path, clients: list[Client]
) -> None:
    cert, key = authority.issue("server", "IP:127.0.0.1")
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read,write")
    serving = serve("--tls-cert", cert, "--tls-key", key)
    clients.append(Client(serving.address, secret, authority.trust()))
    assert clients[0].read(clients[0].put(b"secret")) == b"secret"
    clients.append(Client(serving.address, secret))
    with Refusal() as refused:
        clients[1].hello()
    assert refused.code is grpc.StatusCode.UNAVAILABLE, "plain text is not understood"
    assert serving.web.startswith("https://")
    context = ssl.create_default_context(cafile=str(authority.cert))
    assert serving.get("/healthz", context=context) == (200, "ok\n")


def test_a_new_certificate_counts_without_a_restart(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("first", "IP:127.0.0.1", file="server")
    serving = serve("--tls-cert", cert, "--tls-key", key, "--anonymous", "read")
    assert shown(serving, authority) == "first"
    assert shown(serving, authority, web=True) == "first"
    # For a moment they do not fit: the certificate is renewed before its key.
    new_cert, new_key = authority.issue("second", "IP:127.0.0.1")
    shutil.copy(new_cert, cert)
    assert shown(serving, authority) == "first"
    assert "the certificate that was read before stays" in serving.wait_for("error")["text"]
    shutil.copy(new_key, key)
    assert shown(serving, authority) == "second"
    assert shown(serving, authority, web=True) == "second"
    assert serving.stop() == (0, "")


def shown(serving: Serving, authority: Authority, *, web: bool = False) -> str:
    """The common name of the certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.set_alpn_protocols(["h2"])
    host, _, port = (serving.web.partition("://")[2] if web else serving.address).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
        certificate = tls.getpeercert()
    assert certificate is not None
    return dict(pair for part in certificate["subject"] for pair in part)["commonName"]


def test_a_client_certificate_stands_for_a_token(
    serve: Serve, authority: Authority, tmp_path: Path, clients: list[Client]
) -> None:
    store = tmp_path / "served"
    assert make_token(store, "--name", "runner", "--scope", "read,write", "--certificate", "CN=runner-7") == ""
    make_token(store, "--name", "spiffe", "--scope", "read", "--certificate", "SAN=spiffe://team/ci")
    secret = make_token(store, "--name", "person", "--scope", "read")
    cert, key = authority.issue("server", "IP:127.0.0.1")
    serving = serve("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", authority.cert)

    def client(identity: tuple[Path, Path] | None, token: str = "") -> Client:
        clients.append(Client(serving.address, token, authority.trust(identity)))
        return clients[-1]

    digest = client(authority.issue("runner-7")).put(b"by certificate")
    assert client(authority.issue("any", "URI:spiffe://team/ci")).read(digest) == b"by certificate"
    unknown = client(authority.issue("runner-8"))
    with Refusal() as refused:
        unknown.hello()
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    # A certificate that is good but stands for nothing still needs a token, and a token is asked first.
    assert client(authority.issue("runner-9"), secret).read(digest) == b"by certificate"
    with Refusal() as refused:
        client(authority.issue("runner-7", file="again"), secret).put(b"as person")
    assert "person may not write" in refused.text
    # No certificate, or one of another authority: no connection.
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other").issue("runner-7")
    for identity in (None, other):
        with Refusal() as refused:
            client(identity, secret).hello()
        assert refused.code is grpc.StatusCode.UNAVAILABLE
    # The HTTP port asks nobody for one: what guards its pages is the token.
    context = ssl.create_default_context(cafile=str(authority.cert))
    assert serving.get("/healthz", context=context) == (200, "ok\n")
    assert serving.get("/", context=context)[0] == 401
    assert call("serve", "token", "revoke", "runner", "--store", store).returncode == 0
    time.sleep(1.1)
    with Refusal() as refused:
        clients[0].put(b"no more")
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED


def test_files_that_cannot_be_used_are_one_message(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("server", "IP:127.0.0.1")
    other = authority.issue("other")[1]
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for files, said in (
        ((cert, other), "key values mismatch"),
        ((text, key), "cannot be used"),
        ((tmp_path / "nothing", key), "No such file"),
        ((cert, key, text), "no certificates of authorities"),
    ):
        arguments = ["--tls-cert", files[0], "--tls-key", files[1], *(["--tls-client-ca", files[2]] if len(files) > 2 else [])]
        done = call("serve", "--store", tmp_path / "store", "--anonymous", "read", "--listen", "127.0.0.1:0", *arguments)
        assert done.returncode == 4, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
