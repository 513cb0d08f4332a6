"""Services: what some cases take files from: a web server, a git server, a socket like an ssh agent's."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from case import MTIME, archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START = 60.0
"""Seconds that the git server may take to listen."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def services(folder: Path, files: Path) -> Iterator[dict[str, str]]:
    """Serve `files` (the folder `served` beside the cases). What `{web}`, `{git}` and `{ssh}` stand for."""
    content = folder / "served"
    shutil.copytree(files, content)
    members = {"Dockerfile": {"content": "FROM scratch\nCOPY from-archive /\n"}, "from-archive": {"content": "in the archive\n"}}
    (content / "context.tar.gz").write_bytes(archive("context.tar.gz", members))
    for path in content.rglob("*"):
        os.utime(path, (MTIME, MTIME))
    with _web(content) as web, _git(folder, content / "repository") as git, _socket(folder / "agent.sock") as ssh:
        yield {"web": web, "git": git, "ssh": ssh}


@contextlib.contextmanager
def _web(content: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=content))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _git(folder: Path, content: Path) -> Iterator[str]:
    """`repository.git` with the branches main and other, and the tag v1 on the first of two commits of main."""
    work = folder / "work"
    shutil.copytree(content, work)
    names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "a"), ("EMAIL", "a@example.com"), ("DATE", f"{MTIME} +0000"))}
    env = {**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=work, env=env, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "one")
    git("tag", "v1")
    (work / "version").write_text("two\n")
    git("commit", "-qam", "two")
    git("checkout", "-qb", "other", "v1")
    (work / "version").write_text("other\n")
    git("commit", "-qam", "other")
    git("checkout", "-q", "main")
    served = folder / "git"
    served.mkdir()
    git("clone", "-q", "--bare", ".", str(served / "repository.git"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["git", "daemon", "--export-all", f"--base-path={served}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, start_new_session=True)
    try:
        until = time.monotonic() + _START
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if daemon.poll() is not None or time.monotonic() > until:
                raise RuntimeError("git daemon does not listen")
            time.sleep(0.05)
        yield f"git://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, 15)
        daemon.wait()


@contextlib.contextmanager
def _socket(path: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path) if len(str(path)) > 100 else str(path))
        listening.listen()
        yield str(path)
