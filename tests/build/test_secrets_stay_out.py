"""I4: values of variables with secret names, and passwords in URLs, stand in clear in no record and no output of ours."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import threading
import zlib
from typing import TYPE_CHECKING

import pytest

from cache import encoding
from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.result import Layer
from cache.store import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from program import Program, Ran

GIVEN, OTHER = "given-hunter2", "other-hunter3"
DEFAULT, OWNER, IN_URL = "default-value-7", "190817263", "url-pass-word"
HIDDEN = (GIVEN, OTHER, DEFAULT, OWNER, IN_URL, "hunter2", "hunter3")
"""The last two are what `${API_TOKEN#*-}` leaves of the first two."""

DOCKERFILE = """\
FROM busybox AS base
ARG API_TOKEN
ARG GH_PAT
ARG OWNER_PWD
ARG WEB
ENV X=$API_TOKEN DERIVED=${API_TOKEN#*-}
ADD $WEB/file?key=$API_TOKEN /got
WORKDIR /x/$API_TOKEN
COPY --chown=$OWNER_PWD file /to/$GH_PAT/
RUN true

FROM base AS late
ENV REPO=$WEB/x
RUN echo $X $DERIVED | wc -c
COPY <<END /heredoc
token=$X
END

FROM busybox
ARG API_TOKEN
ARG URL=https://$API_TOKEN@host/
COPY --from=late /heredoc /ok
RUN true
"""
if os.geteuid() != 0:
    DOCKERFILE = DOCKERFILE.replace("--chown=$OWNER_PWD ", "")  # an ordinary user has no such number to give


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server's URL, with a user and a password."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web/file").write_text("fetched\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://me:{IN_URL}@127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def arguments(web: str, token: str = GIVEN) -> list[str]:
    given = {"API_TOKEN": token, "GH_PAT": DEFAULT, "OWNER_PWD": OWNER, "WEB": web}
    return [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]


def kept(directory: Path) -> Iterator[tuple[str, bytes]]:
    """All that a store holds, unpacked where it is packed, but for layers and images: what is in them is the user's own."""
    store = LmdbStore(str(directory))
    try:
        for table in TABLES:
            for key, value in store.scan(table):
                yield f"key in {table}", key.encode()
                yield f"{table} {key}", value
                try:
                    yield f"{table} {key}", zlib.decompress(value)
                except zlib.error:
                    continue
        layers = [Layer.from_json(encoding.parse(value)) for _, value in store.scan("layers")]
        own = {blob.hash for layer in layers for blob in (layer.tar, layer.listing) if blob is not None}
        own |= {Digest.parse(encoding.parse(value)["config"]).hash for _, value in store.scan("names")}
        with store.view() as view:
            yield from ((f"blob {name}", data) for name, data in view.blobs() if name not in own)
        for path in (directory / "mounts").glob("*.*"):
            yield f"mount {path.name}", path.name.encode() + path.read_bytes()
        for path in (each for each in (directory / "blobs").rglob("*") if each.is_file()):
            if path.parent.name + path.name not in own:
                yield f"file {path}", path.read_bytes()
    finally:
        store.close()


def told_by_store(directory: Path) -> list[str]:
    return [f"{value} in {where}" for where, data in kept(directory) for value in HIDDEN if value.encode() in data]


def told_by(ran: Ran) -> list[str]:
    said = ran.stdout + ran.stderr + json.dumps(ran.events, ensure_ascii=False)
    return [value for value in HIDDEN if value in said]


def calls(program: Program, project: Path, *given: str) -> Iterator[Ran]:
    """What tells about a build that would come, and about the last one."""
    for form in ("tree", "json", "html", "dot", "mermaid"):
        yield program.call("plan", project, *program.base(), "--format", form, *given)
    for step in ("base.6", "base.7", "base.8", "base.9", "late.2", "late.3", "2.3", "2.4"):
        for options in ([], ["--last"], ["--format", "json"]):
            yield program.call("why", step, project, *program.base(), *options, *given)
    yield program.call("log", "--list", project)
    yield program.call("cache", "stat")
    yield program.call("cache", "du", "--verbose")


def test_nothing_tells_a_secret(program: Program, web: str) -> None:
    project = program.project(DOCKERFILE, {"file": "1\n"})
    built = [program.build(project, *arguments(web), "--progress", progress).ok() for progress in ("rawjson", "plain")]
    assert [told_by(ran) for ran in built] == [[], []]
    assert told_by_store(program.store) == []
    ran = program.build(project, *arguments(web, OTHER), "--progress", "plain").ok()
    assert told_by(ran) == []
    assert told_by_store(program.store) == []
    found = list(calls(program, project, *arguments(web, GIVEN + "!")))
    assert [told_by(each) for each in found if told_by(each)] == []
    assert [each.stderr for each in found if each.code] == []
    assert any(b"API_TOKEN" in data for _, data in kept(program.store)), "records of variables are among what is searched"


def test_an_image_built_here_is_a_base_whose_secrets_are_known(program: Program) -> None:
    """Whatever they are called there, also through another image, and for another name of the same image."""
    base = program.project(
        "FROM busybox\nARG API_TOKEN\nARG SHORT_PW\nENV X=pre-$API_TOKEN SHORT=$SHORT_PW PLAIN=1\nWORKDIR /a/$API_TOKEN\n",
        name="base",
    )
    given = ["--build-arg", f"API_TOKEN={GIVEN}", "--build-arg", "SHORT_PW=q7z"]
    program.build(base, *given, "-t", "ownbase").ok()
    program.build(program.project("FROM ownbase\nENV Y=2\nRUN true\n", name="middle"), "-t", "middle").ok()
    program.call("image", "tag", "middle", "other").ok()
    user = program.project("FROM other\nWORKDIR sub\nRUN echo $X in $PWD | tr a-z A-Z\nENV CUT=${X#pre-}\nRUN true $PLAIN\n")
    built = program.build(user).ok()
    assert built.output("0.2") == [f"PRE-{GIVEN} IN /A/{GIVEN}/SUB".upper()]
    assert told_by(built) == []
    assert told_by_store(program.store) == []
    why = [program.call("why", step, user, *program.base(), "--format", "json").ok() for step in ("0.1", "0.2", "0.4")]
    assert [told_by(each) for each in why] == [[], [], []]


def test_cache_mounts_do_not_tell_a_secret(program: Program) -> None:
    line = "RUN --mount=type=cache,id=$API_TOKEN,target=/c/$X touch /c/$X/file"
    project = program.project(f"FROM busybox\nARG API_TOKEN\nARG X=at-$API_TOKEN\n{line}\n")
    given = ["--build-arg", f"API_TOKEN={GIVEN}"]
    program.build(project, *given).ok()
    assert told_by_store(program.store) == []
    listed = program.call("cache", "du", "--verbose").ok()
    assert "*** at /c/at-***" in listed.stdout
    assert told_by(listed) == []
    files = program.files(program.project(f"FROM busybox\nARG API_TOKEN\nARG X=at-$API_TOKEN\n{line}2 && ls /c/$X > /seen\n"), *given)
    assert (files / "seen").read_text() == "file\nfile2\n", "it is still found by its name"


def test_a_changed_secret_is_told_without_its_value(program: Program, web: str) -> None:
    project = program.project(DOCKERFILE, {"file": "1\n"})
    program.build(project, *arguments(web)).ok()
    why = [program.call("why", step, project, *program.base(), *arguments(web, OTHER)).ok() for step in ("base.8", "late.2")]
    assert "the directory changed" in why[0].stdout
    assert "API_TOKEN" in why[1].stdout
    assert [told_by(each) for each in why] == [[], []]
    same = program.statuses(project, *arguments(web))
    assert set(same.values()) == {"hit"}


def test_a_secret_that_did_not_change_is_no_cause(program: Program) -> None:
    """Marks are equal for equal values, also where today more is known to be secret."""
    program.build(program.project("FROM busybox\nARG API_TOKEN\nENV X=$API_TOKEN\nRUN echo production\n"),
                  "--build-arg", f"API_TOKEN={GIVEN}").ok()  # fmt: skip
    project = program.project("FROM busybox\nARG API_TOKEN\nARG DEPLOY_KEY=production\nENV X=$API_TOKEN\nRUN echo production\n")
    why = program.call("why", "0.4", project, *program.base(), "--build-arg", f"API_TOKEN={GIVEN}", "--format", "json").ok()
    planned = json.loads(why.stdout)["planned"]
    assert planned["reason"] == "variables-changed"
    assert planned["explanation"] == "the value of DEPLOY_KEY changed (it is secret, so it is not shown)"
    assert planned["details"] == []


def test_failures_do_not_tell_a_secret(program: Program, web: str) -> None:
    lines = {
        "WORKDIR /file/$API_TOKEN": "FROM busybox\nARG API_TOKEN\nRUN touch /file\nWORKDIR /file/$API_TOKEN\n",
        "COPY": "FROM busybox\nARG API_TOKEN\nCOPY $API_TOKEN /x\n",
        "COPY --chown": "FROM busybox\nARG API_TOKEN\nCOPY --chown=$API_TOKEN file /x\n",
        "ADD": "FROM busybox\nARG API_TOKEN\nARG WEB\nADD $WEB/$API_TOKEN /x\n",
        "ADD git": "FROM busybox\nARG API_TOKEN\nARG WEB\nADD $WEB/$API_TOKEN.git /x\n",
        "RUN": "FROM busybox\nARG API_TOKEN\nARG WEB\nRUN false\n",
    }
    for name, dockerfile in lines.items():
        ran = program.build(program.project(dockerfile, {"file": ""}), *arguments(web), "--progress", "plain")
        assert ran.code != 0, name
        assert "Traceback" not in ran.stderr
        assert (name, told_by(ran)) == (name, [])
        assert (name, told_by_store(program.store)) == (name, [])


def test_a_secret_that_is_given_or_not(program: Program) -> None:
    """What `why` says of a secret that a policy has in the key."""
    project = program.project("FROM busybox\n# buildgraph: secret-in-key=npm\nRUN --mount=type=secret,id=npm true\n")
    secret = program.root / "npm"
    secret.write_text("first-value")
    given = ["--secret", f"id=npm,src={secret}"]

    def why(*options: str) -> str:
        return program.call("why", "0.1", project, *program.base(), *options).ok().stdout

    program.build(project).ok()
    assert "the secret npm is given now" in why(*given)
    program.build(project, *given).ok()
    secret.write_text("second-value")
    assert "the value of the secret npm changed" in why(*given)
    program.build(project, *given).ok()
    program.project("FROM busybox\n# buildgraph: secret-in-key=npm\nRUN --mount=type=secret,id=npm true && :\n")
    assert "is not given any more" in why()


def test_a_repository_that_is_kept_does_not_keep_its_password(program: Program, web: str, tmp_path: Path) -> None:
    """Git writes the remote's URL into .git/config, which goes into a layer."""
    work, bare = tmp_path / "work", tmp_path / "web/repository.git"
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q", work], ["-C", work, *who, "commit", "-q", "--allow-empty", "-m", "first"],
                  ["clone", "-q", "--bare", work, bare], ["-C", bare, "update-server-info"]):  # fmt: skip
        subprocess.run(["git", *words], check=True, capture_output=True)
    project = program.project(f"FROM scratch\nADD --keep-git-dir=true {web}/repository.git /r\n")
    config = program.files(project) / "r/.git/config"
    assert f"url = {web.replace(IN_URL, '***')}/repository.git\n" in config.read_text()
    left = [path for path in config.parent.rglob("*") if path.is_file() and IN_URL.encode() in path.read_bytes()]
    assert left == []
    assert told_by_store(program.store) == []


def test_the_outline_does_not_tell_what_was_given(program: Program) -> None:
    project = program.project("ARG BASE=busybox\nFROM $BASE\nARG API_TOKEN\nARG URL=https://h/?t=$API_TOKEN\nARG SIZE\n")
    given = ["--build-arg", f"API_TOKEN={GIVEN}", "--build-arg", "SIZE=large"]
    for form in ("outline", "outline,format=json"):
        ran = program.call("build", project, *program.base(), "--call", form, *given).ok()
        assert told_by(ran) == []
        assert "https://h/?t=***" in ran.stdout
        assert "large" in ran.stdout
