"""Who may do what: tokens, their scopes, namespaces and ends, and what the log says of those who may not."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from buildgraph.v1 import team_pb2, team_pb2_grpc
from serving import Refusal, call, digest_of, make_token

from cache.errors import UsageError
from cache.server import tokens
from cache.server.patterns import check_pattern, matches

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect, Serve


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("main", "main", True), ("main", "main2", False), ("main", "xmain", False), ("main", "", False),
        ("", "", True), ("", "main", False), ("*", "", True), ("*", "main", True), ("*", "pr/7", False),
        ("pr/*", "pr/7", True), ("pr/*", "pr/7/x", False), ("pr/*", "pr", False), ("pr/*", "prx", False),
        ("pr/**", "pr/7/x", True), ("**", "a/b/c", True), ("**", "", True), ("pr-*", "pr-7", True), ("pr-*", "pr-7/x", False),
        ("a.c", "abc", False), ("pr/*/x", "pr/7/x", True), ("pr/*/x", "pr/7/8/x", False),
    ],
)  # fmt: skip
def test_a_star_stays_within_one_level(pattern: str, name: str, fits: bool) -> None:
    assert matches(check_pattern(pattern), name) is fits


@pytest.mark.parametrize("pattern", ["/x", "x/", "a//b", "../x", "a b", "[ab]", "?", "x" * 300, "*a*b*c*d*e"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        check_pattern(pattern)


def test_the_file_holds_no_secret_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    secret = make_token(tmp_path, "--name", "ci")
    path = tmp_path / "tokens.json"
    assert re.fullmatch(r"bgt_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", secret)
    text = path.read_text()
    assert secret not in text
    assert secret.split("_", 2)[2] not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    done = call("serve", "token", "list", "--store", tmp_path)
    assert done.returncode == 4
    assert "chmod 600" in done.stderr


def test_create_list_and_revoke_say_what_they_did(tmp_path: Path) -> None:
    make_token(tmp_path, "--name", "ci", "--grant", "read:main", "--grant", "read,write:pr/*", "--expires", "90d", "--max-rate", "5")
    make_token(tmp_path, "--name", "me", "--scope", "admin", "--namespace", "**")
    listed = call("serve", "token", "list", "--store", tmp_path).stdout
    assert re.search(r"ci +good +read:main read,write:pr/\* +\S+ +\S+ +5/s", listed)
    assert re.search(r"me +good +admin:\*\* +\S+ +never", listed)
    document = json.loads(call("serve", "token", "list", "--store", tmp_path, "--format", "json").stdout)
    assert [token["name"] for token in document["tokens"]] == ["ci", "me"]
    assert document["tokens"][0]["expires"] - document["tokens"][0]["created"] == 90 * 86_400
    assert "hash" not in document["tokens"][0]
    revoked = call("serve", "token", "revoke", document["tokens"][0]["id"], "--store", tmp_path)
    assert "of ci is revoked" in revoked.stdout
    assert re.search(r"ci +revoked", call("serve", "token", "list", "--store", tmp_path).stdout)
    assert call("serve", "token", "revoke", "nobody", "--store", tmp_path).returncode == 2
    for asked in ("ci", document["tokens"][0]["id"]):
        again = call("serve", "token", "revoke", asked, "--store", tmp_path)
        assert again.returncode == 0
        assert "of ci was revoked before" in again.stdout
    # A name that was given up may be used again.
    assert make_token(tmp_path, "--name", "ci")
    assert "of ci is revoked" in call("serve", "token", "revoke", "ci", "--store", tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "a b"], "no name"), (["--name", "anonymous"], "is taken"), (["--name", "me"], "is taken"),
        (["--name", "x", "--scope", "rule"], "no scope 'rule'"), (["--name", "x", "--grant", "read"], "says no namespace"),
        (["--name", "x", "--namespace", "a//b"], "no pattern"), (["--name", "x", "--expires", "never"], "no age"),
        (["--name", "x", "--certificate", "alice"], "CN=NAME"), (["--name", "x", "--max-bytes", "lots"], "no size"),
        (["--name", "x", "--max-rate", "0"], "no rate"), (["--name", "x", "--expires", "0s"], "never be good"),
        (["--name", "x", "--max-message", "63k"], "64.0 KiB is the least"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_makes_no_token(tmp_path: Path, arguments: list[str], said: str) -> None:
    make_token(tmp_path, "--name", "me")
    before = (tmp_path / "tokens.json").read_bytes()
    done = call("serve", "token", "create", "--store", tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert (tmp_path / "tokens.json").read_bytes() == before


def test_a_damaged_file_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    for text in ("", "[]", '{"version": 1}', '{"version": 9, "tokens": []}', '{"version": 1, "tokens": [{"id": 1}]}', "[" * 100_000):
        path.write_text(text)
        path.chmod(0o600)
        done = call("serve", "--store", tmp_path, "--listen", "127.0.0.1:0")
        assert done.returncode == 4, text[:50]
        assert "Traceback" not in done.stderr


def test_tokens_are_compared_in_constant_time_and_only_whole(tmp_path: Path) -> None:
    token, secret = tokens.create((), "me", [tokens.parse_grant("read:**")])
    known = tokens.Tokens([token])
    assert known.by_secret(secret) is token
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), f"bgt_{token.id}_{'A' * 43}", secret.replace(token.id, "0" * 12), token.hash):
        assert known.by_secret(wrong) is None


def test_who_has_no_good_token_is_not_let_in(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    store = tmp_path / "served"
    good = make_token(store, "--name", "good", "--scope", "read,write")
    gone = make_token(store, "--name", "gone")
    assert call("serve", "token", "revoke", "gone", "--store", store).returncode == 0
    old = make_token(store, "--name", "old", "--expires", "1s")
    serving = serve()
    time.sleep(1.1)
    assert connect(serving, good).put(b"x")
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    for secret, said in ((gone, "gone is revoked"), (old, "old is expired"), ("", "wants a token"), (wrong, "not known"), ("x y", "not known")):
        client = connect(serving, secret)
        with Refusal() as refused:
            client.put(b"y")
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED, secret
        assert said in refused.text
        with Refusal() as refused:
            client.hello()
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    client = connect(serving)
    client.metadata = [("authorization", f"Basic {good}")]
    with Refusal() as refused:
        client.hello()
    assert "Bearer" in refused.text
    lines = serving.events("refused")
    assert len(lines) == 11
    assert {line["status"] for line in lines} == {"UNAUTHENTICATED"}
    assert lines[0]["who"] == "gone"
    assert lines[0]["peer"].startswith("ipv4:127.0.0.1:")
    log = serving.log.read_text()
    for secret in (good, gone, old, wrong):
        assert secret not in log
        assert secret.split("_", 2)[2] not in log


def test_a_pull_request_reads_main_and_never_writes_it(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    store = tmp_path / "served"
    main = make_token(store, "--name", "main", "--scope", "read,write", "--namespace", "main")
    pr = make_token(store, "--name", "pr", "--grant", "read:main", "--grant", "read,write:pr/*")
    serving = serve()
    ours, theirs = connect(serving, main), connect(serving, pr)
    output = ours.put(b"built on main", "main")
    action = ours.publish("compile", output, namespace="main")
    assert theirs.result(action, "main") is not None
    assert theirs.read(output, "main") == b"built on main"
    for attempt in (
        lambda: theirs.put(b"evil", "main"),
        lambda: theirs.write(b"evil", "main"),
        lambda: theirs.publish("compile", output, namespace="main"),
        lambda: theirs.put(b"evil"),
        lambda: ours.put(b"x", "pr/7"),
        lambda: ours.missing(output, namespace="pr/7"),
        lambda: theirs.put(b"evil", "pr/7/deep"),
    ):
        with Refusal() as refused:
            attempt()
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert "may not write in namespace 'pr/7/deep'; its token has read in main and read,write in pr/*" in refused.text
    # Its own namespace is its own, with what it may read at hand.
    assert theirs.missing(output, namespace="pr/7") == []
    theirs.publish("compile", theirs.put(b"from a pull request", "pr/7"), namespace="pr/7")
    assert ours.result(action, "main").output_files[0].digest == output
    line = serving.events("refused")[0]
    assert (line["who"], line["namespace"], line["status"]) == ("pr", "main", "PERMISSION_DENIED")
    published = serving.events("published")
    assert [(line["who"], line["namespace"]) for line in published] == [("main", "main"), ("pr", "pr/7")]


@pytest.mark.slow
def test_a_change_of_the_file_counts_without_a_restart(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    store = tmp_path / "served"
    first = make_token(store, "--name", "first", "--scope", "read,write")
    serving = serve()
    client = connect(serving, first)
    client.put(b"x")
    second = make_token(store, "--name", "second", "--scope", "read,write")
    assert call("serve", "token", "revoke", "first", "--store", store).returncode == 0
    serving.wait_for("tokens") if _soon_refused(client) else None
    with Refusal() as refused:
        client.put(b"y")
    assert "revoked" in refused.text
    connect(serving, second).put(b"z")
    # A slip of whoever edits the file locks nobody out, and is told.
    (store / "tokens.json").write_text("{")
    time.sleep(1.1)
    connect(serving, second).put(b"still")
    assert "the tokens that were read before stay in force" in serving.wait_for("error")["text"]
    os.unlink(store / "tokens.json")
    time.sleep(1.1)
    with Refusal() as refused:
        connect(serving, second).put(b"none any more")
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED


def _soon_refused(client: object) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            client.put(b"y")  # type: ignore[attr-defined]
        except grpc.RpcError:
            return True
        time.sleep(0.1)
    return False


def test_anonymous_read_lets_nobody_write(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read,write")
    serving = serve("--anonymous", "read")
    digest = connect(serving, secret).put(b"x")
    nobody = connect(serving)
    assert nobody.read(digest) == b"x"
    for attempt in (lambda: nobody.put(b"y"), lambda: nobody.publish("a"), lambda: nobody.write(b"y")):
        with Refusal() as refused:
            attempt()
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        assert "nobody may write in the default namespace without a token" in refused.text
    # Whoever shows a bad token is told so, not served as nobody in particular.
    with Refusal() as refused:
        connect(serving, "bgt_000000000000_" + "A" * 43).read(digest)
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED


def test_hello_says_who_i_am_and_what_i_may(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "pr", "--grant", "read:main", "--grant", "read,write:pr/*")
    client = connect(serve(), secret)
    team = team_pb2_grpc.TeamStub(client.channel)
    hello = team.Hello(team_pb2.HelloRequest(instance_name="pr/7"), metadata=client.metadata)
    assert (hello.name, list(hello.scopes), list(hello.namespaces)) == ("pr", ["read", "write"], ["main", "pr/*"])
    assert list(team.Hello(team_pb2.HelloRequest(instance_name="main"), metadata=client.metadata).scopes) == ["read"]


def test_path_tricks_in_instance_names_are_refused(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    names = ["../main", "main/../x", "/main", "main/", "a//b", "ma\0in", "x" * 101, "main/blobs", "main\n"]
    for name in names:
        with Refusal() as refused:
            client.put(b"x", name)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, name
    assert [line["status"] for line in serving.events("refused")] == ["INVALID_ARGUMENT"] * len(names)
    assert client.missing(digest_of(b"x"), namespace="main")
    with Refusal() as refused:
        client.put(b"x", "x" * 150)
    assert "at most 100 characters, this one has 150" in refused.text


def test_a_flood_of_refusals_fills_no_disk(serve: Serve, connect: Connect) -> None:
    serving = serve("--anonymous", "read")
    client = connect(serving)
    began = time.monotonic()
    for number in range(800):
        with Refusal():
            client.publish(str(number))
    time.sleep(0.1)
    with Refusal():
        client.publish("last")
    took = time.monotonic() - began
    lines = serving.events("refused")
    assert 500 <= len(lines) <= 502 + 50 * took, "so many at once, and so many a second"
    assert sum(line.get("suppressed", 0) for line in lines) + len(lines) >= 790
    assert serving.metric('buildgraph_requests_total{method="UpdateActionResult",status="PERMISSION_DENIED"}') == 801


def test_a_token_that_was_just_made_is_good_at_once(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    store = tmp_path / "served"
    make_token(store, "--name", "first", "--scope", "read,write")
    serving = serve()
    for name in ("second", "third", "fourth"):
        assert connect(serving, make_token(store, "--name", name, "--scope", "read,write")).put(name.encode())
