"""Client and server that do not come to trust each other: what is said names the file, or the line that helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from authority import Authority
from serving import make_token
from team import warnings

from cache.errors import EnvironmentProblem
from cache.remote.client import Client
from cache.remote_settings import RemoteSettings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeMachine, Serve
    from serving import Serving

STEPS = "FROM busybox\nRUN echo one > /one\n"


class Papers(NamedTuple):
    """ours, another: authorities. server, misnamed: (certificate, key) for 127.0.0.1, and for another name, by ours.
    client, stranger: for clients, by ours and by another."""

    ours: Authority
    another: Authority
    server: tuple[Path, Path]
    misnamed: tuple[Path, Path]
    client: tuple[Path, Path]
    stranger: tuple[Path, Path]


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    directory = tmp_path / "tls"
    directory.mkdir()
    ours, another = Authority(directory), Authority(directory, "another")
    return Papers(
        ours, another, ours.issue("server", "IP:127.0.0.1"), ours.issue("misnamed", "DNS:elsewhere"), ours.issue("me"), another.issue("you"),
    )  # fmt: skip


def told(serving: Serving, ca: Path | str = "", certificate: tuple[Path, Path] | None = None, *, tls: bool = True) -> str:
    """What a client says that cannot connect."""
    cert, key = ("", "") if certificate is None else map(str, certificate)
    with pytest.raises(Exception, match="remote") as raised:
        Client(RemoteSettings(tls, serving.address, ("",), "", "", str(ca), cert, key)).close()
    assert "OPENSSL" not in str(raised.value)
    return str(raised.value)


@pytest.mark.slow
def test_what_is_wrong_is_told_with_what_helps(serve: Serve, papers: Papers, tmp_path: Path) -> None:
    def serving(name: str, *arguments: str | Path) -> Serving:
        return serve("--anonymous", "write", *arguments, store=tmp_path / name)

    cert, key = papers.server
    secure = serving("secure", "--tls-cert", cert, "--tls-key", key)
    unknown = told(secure)
    assert "by no authority that this machine trusts" in unknown
    assert 'ca = "FILE" in [remote] of buildgraph.toml' in unknown
    assert "BUILDGRAPH_REMOTE_CA" in unknown
    assert f"by no authority of {papers.another.cert}" in told(secure, papers.another.cert)
    assert "its address begins with grpcs://" in told(secure, tls=False)
    misnamed = serving("misnamed", "--tls-cert", papers.misnamed[0], "--tls-key", papers.misnamed[1])
    assert "its certificate is not for the name 127.0.0.1" in told(misnamed, papers.ours.cert)
    assert "its address begins with grpc://" in told(serving("plain"), papers.ours.cert)
    mutual = serving("mutual", "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", papers.ours.cert)
    assert "wants a certificate of yours: one is named with cert and key" in told(mutual, papers.ours.cert)
    assert f"does not take {papers.stranger[0]}" in told(mutual, papers.ours.cert, papers.stranger)
    Client(RemoteSettings(True, mutual.address, ("",), "", "", str(papers.ours.cert), *map(str, papers.client))).close()


@pytest.mark.slow
def test_a_build_in_ci_trusts_an_authority_that_the_environment_names(machine: MakeMachine, serve: Serve, papers: Papers, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "team", "--name", "ci", "--scope", "read,write")
    serving = serve("--tls-cert", papers.server[0], "--tls-key", papers.server[1], store=tmp_path / "team")
    env = {"BUILDGRAPH_TOKEN": secret, "BUILDGRAPH_REMOTE": f"grpcs://{serving.address}"}
    first, second = machine("a", env={**env, "BUILDGRAPH_REMOTE_CA": str(papers.ours.cert)}), machine("b", env=env)
    assert not warnings(first.program.build(first.project(STEPS)).ok())
    refused = second.program.build(second.project(STEPS)).ok()
    assert refused.executed
    assert "BUILDGRAPH_REMOTE_CA" in warnings(refused)[0]
    third = machine("c", env={**env, "BUILDGRAPH_REMOTE_CA": str(papers.ours.cert)})
    assert not third.program.build(third.project(STEPS)).ok().executed


def test_files_that_cannot_be_used_are_errors_that_name_them(machine: MakeMachine, papers: Papers, tmp_path: Path) -> None:
    alone = machine("a", remote="grpcs://127.0.0.1:9")
    context = alone.project(STEPS)
    alone.program.env["BUILDGRAPH_REMOTE_CA"] = str(tmp_path / "nowhere.pem")
    for command in ("build", "plan"):
        ran = alone.call(command, context, *alone.program.base(), "--remote", alone.remote).failed(4)
        assert f"cannot read the certificate {tmp_path}/nowhere.pem: No such file" in ran.stderr
    alone.program.env["BUILDGRAPH_REMOTE_CA"] = str(papers.server[1])
    ran = alone.build(context).failed(4)
    assert f"{papers.server[1]} holds no certificate in PEM form" in ran.stderr
    # What is not used need not be there.
    alone.program.build(context, "--no-remote").ok()
    with pytest.raises(EnvironmentProblem, match="not a certificate and its key"):
        Client(RemoteSettings(True, "127.0.0.1:9", ("",), "", "", "", str(papers.client[0]), str(papers.stranger[1])))
