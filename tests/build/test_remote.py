"""Sources and contexts that are not on this disk: git repositories, archives and Dockerfiles on the web."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import os
import socket
import subprocess
import tarfile
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"
ENV = {**os.environ, "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t", "GIT_CONFIG_GLOBAL": "/dev/null"}


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=directory, env=ENV, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A repository served by git's own daemon on loopback: URL, and where to commit."""
    work = tmp_path / "served/project"
    work.mkdir(parents=True)
    git(work, "init", "-q", "-b", "main")
    (work / "a.txt").write_text("one\n")
    (work / "sub").mkdir()
    (work / "sub/b.sh").write_text("#!/bin/sh\necho b\n")
    (work / "sub/b.sh").chmod(0o755)
    (work / "Dockerfile").write_text(BASE + "COPY a.txt sub/ /t/\nRUN cat /t/a.txt\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "first")
    git(work, "tag", "-a", "v1", "-m", "v1")
    for _ in range(5):  # somebody else may take the port before it does
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        daemon = subprocess.Popen(
            ["git", "daemon", f"--base-path={tmp_path / 'served'}", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--enable=upload-pack"],
            env={**ENV, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        if listens(daemon, port):
            break
    assert daemon.poll() is None, "git daemon does not listen"
    yield f"git://127.0.0.1:{port}/project", work
    with contextlib.suppress(ProcessLookupError):
        os.killpg(daemon.pid, 15)
    daemon.wait()


def listens(daemon: subprocess.Popen[bytes], port: int) -> bool:
    """Once it does: true."""
    until = time.monotonic() + 60
    while daemon.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.05)
    return False


def test_add_from_git(each_way: Program, repository: tuple[str, Path]) -> None:
    url, work = repository
    first = git(work, "rev-parse", "HEAD")
    show = "RUN cd /t && find . -type f | sort | while read p; do stat -c '%n %a %u' $p; done; cat a.txt\n"
    project = each_way.project(BASE + f"ADD {url}#main /t\n" + show)
    assert each_way.build(project).ok().output("1.2") == ["./Dockerfile 644 0", "./a.txt 644 0", "./sub/b.sh 755 0", "one"]
    assert each_way.build(project).ok().executed == []
    (work / "a.txt").write_text("two\n")
    git(work, "commit", "-q", "-am", "second")
    assert each_way.build(project).ok().output("1.2")[-1] == "two"
    by_tag = each_way.project(BASE + f"ADD {url}?tag=v1 /t\nRUN cat /t/a.txt\n", name="tag")
    assert each_way.build(by_tag).ok().output("1.2") == ["one"]
    by_commit = each_way.project(BASE + f"ADD {url}#{first}:sub /s\nRUN ls /s\n", name="commit")
    assert each_way.build(by_commit).ok().output("1.2") == ["b.sh"]
    kept = each_way.project(BASE + f"ADD --keep-git-dir=true {url} /t\nRUN ls -d /t/.git\n", name="kept")
    assert each_way.build(kept).ok().output("1.2") == ["/t/.git"]
    right = each_way.project(BASE + f"ADD --checksum={first} {url}#v1 /t\n", name="right")
    each_way.build(right).ok()
    wrong = each_way.project(BASE + f"ADD --checksum={'0' * 40} {url}#v1 /t\n", name="wrong")
    assert "not at 0000" in each_way.build(wrong).failed(3).stderr


def test_git_sources_run_nothing_of_the_repository(program: Program, repository: tuple[str, Path], tmp_path: Path) -> None:
    """I5: no hooks, no filters, no other transports, no prompts."""
    url, work = repository
    (work / ".gitattributes").write_text("*.txt filter=evil\n")
    (work / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch {tmp_path / "pwned"}"\n')
    (work / "link").symlink_to("/etc/passwd")
    git(work, "add", ".")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{git(work, 'rev-parse', 'HEAD')},x")
    git(work, "commit", "-q", "-m", "evil")
    failed = program.build(program.project(BASE + f"ADD {url} /t\n")).failed(5)
    assert "git submodule failed" in failed.stderr
    assert not (tmp_path / "pwned").exists()
    built = program.build(program.project(BASE + f"ADD {url}?submodules=false /t\nRUN readlink /t/link\n")).ok()
    assert built.output("1.2") == ["/etc/passwd"]


def test_a_branch_that_is_not_there(program: Program, repository: tuple[str, Path]) -> None:
    failed = program.build(program.project(BASE + f"ADD {repository[0]}#nowhere /t\n")).failed(3)
    assert "no branch, tag or commit 'nowhere'" in failed.stderr
    assert "4 | ADD git://" in failed.stderr


def test_a_context_from_git(program: Program, repository: tuple[str, Path]) -> None:
    url, _ = repository
    ran = program.call("build", url, *program.base(), "--progress", "plain").ok()
    assert "one" in ran.stderr
    named = program.project("FROM scratch\nCOPY --from=repo /a.txt /\n")
    program.build(named, "--build-context", f"repo={url}#main").ok()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    files = tmp_path / "web"
    files.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(files)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", files
    server.shutdown()
    thread.join()
    server.server_close()


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


FILES = {"Dockerfile": BASE + "COPY f /f\nRUN cat /f\n", "f": "from-archive\n", "other/File": "FROM busybox\nRUN echo other\n"}


def test_a_context_from_an_archive_on_the_web(program: Program, web: tuple[str, Path]) -> None:
    (web[1] / "context.tar.gz").write_bytes(archive(FILES))
    ran = program.call("build", f"{web[0]}/context.tar.gz", *program.base(), "--progress", "plain").ok()
    assert "from-archive" in ran.stderr
    again = program.call("build", f"{web[0]}/context.tar.gz", *program.base(), "--progress", "plain").ok()
    assert "0 ran" in again.stderr
    other = program.call("build", f"{web[0]}/context.tar.gz", "-f", "other/File", *program.base(), "--progress", "plain").ok()
    assert "other" in other.stderr


def test_a_dockerfile_on_the_web(program: Program, web: tuple[str, Path]) -> None:
    (web[1] / "Dockerfile").write_text("FROM busybox\nRUN echo from-the-web\n")
    ran = program.call("build", f"{web[0]}/Dockerfile", *program.base(), "--progress", "plain").ok()
    assert "from-the-web" in ran.stderr


def test_an_archive_or_a_dockerfile_on_stdin(program: Program) -> None:
    ran = program.call("build", "-", *program.base(), "--progress", "plain", input=archive(FILES)).ok()
    assert "from-archive" in ran.stderr
    plain = program.call("build", "-", *program.base(), "--progress", "plain", input=b"FROM busybox\nRUN echo plain\n").ok()
    assert "plain" in plain.stderr
    beside = program.call("build", "-f", "-", program.project("", {"g": "beside\n"}), *program.base(), "--progress", "plain", input=b"FROM busybox\nCOPY g /\nRUN cat /g\n").ok()
    assert "beside" in beside.stderr


def test_source_date_epoch_may_be_the_time_of_a_source(program: Program, repository: tuple[str, Path], web: tuple[str, Path]) -> None:
    url, work = repository
    committed = int(git(work, "log", "-1", "--format=%ct"))
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(committed))
    program.call("build", url, *program.base(), "--build-arg", "SOURCE_DATE_EPOCH=context", "-t", "e:1").ok()
    assert program.config("e:1")["created"] == stamp
    (web[1] / "file").write_text("x")
    os.utime(web[1] / "file", (1_600_000_000, 1_600_000_000))
    project = program.project(f"FROM scratch AS src\nADD {web[0]}/file /f\nFROM scratch\nCOPY --from=src /f /f\n")
    program.build(project, "--build-arg", "SOURCE_DATE_EPOCH=src", "-t", "e:2").ok()
    assert program.config("e:2")["created"] == "2020-09-13T12:26:40Z"
    failed = program.build(project, "--build-arg", "SOURCE_DATE_EPOCH=context").failed(2)
    assert "only what comes from git or the web" in failed.stderr
