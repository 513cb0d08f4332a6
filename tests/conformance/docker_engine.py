"""Debian's dockerd (20.10, BuildKit on) with a data root and a socket of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from engine import BASE, Answer, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from case import Case

_START = 60.0
"""Seconds until the daemon must answer."""
_LACKS = (
    (r"<<-?[\"']?\w", "heredocs"),
    (r"--link", "COPY --link"),
    (r"--parents", "COPY --parents"),
    (r"--exclude", "COPY --exclude"),
    (r"--unpack", "ADD --unpack"),
    (r"--checksum", "ADD --checksum"),
    (r"--keep-git-dir|GIT\}", "ADD from git"),
    (r"--chmod=\S*[ugoa]+[-+=]", "symbolic --chmod"),
    (r"--start-interval", "HEALTHCHECK --start-interval"),
    (r"--(security|device)", "RUN --security and --device"),
    (r"--build-context", "named contexts"),
    (r"^# syntax=", "the network, for # syntax="),
    (r"\$\{\w+(#|%|/|[-+?])", "modifiers beyond :- :+ :?"),
    (r"\.zst\b", "archives in zstd"),
    (r"type=secret\S*,env=", "secrets in the environment"),
    (r"SOURCE_DATE_EPOCH", "SOURCE_DATE_EPOCH"),
    (r"--(ulimit|shm-size)", "--ulimit and --shm-size with BuildKit"),
    (r"--platform linux/amd64,", "--platform with several values"),
    (r"--ssh", "an agent that answers"),
)
_QUIRKS = (
    (r"^(/dev|/proc|/sys|/etc/hosts|/etc/resolv.conf)(/.*)? ", "20.10 leaves the mount points of RUN in the layer"),
    (r"^config WorkingDir: .* there (''|None)", "newer versions set / where nothing is said"),
)


def plain_history(text: str) -> str:
    """Without what newer versions write otherwise: flags of COPY, values of ARG, ports, the start interval."""
    text = re.sub(r"^(COPY|ADD)( --\S+)+", r"\1", text)
    if text.startswith("ARG "):
        text = re.sub(r"=\S*", "", text)
    text = re.sub(r"^EXPOSE \[(.*)\]", r"EXPOSE \1", text)
    if text.startswith("EXPOSE map["):
        text = "EXPOSE " + text.removeprefix("EXPOSE map[").removesuffix("]").replace(":{}", "")
    return re.sub(r'^(HEALTHCHECK .* "\w+" "\w+" "\w+") "\w+" ', r"\1 ", text)


class Docker:
    """The client of one daemon."""

    name = "docker"
    lacks = _LACKS
    quirks = _QUIRKS
    history = staticmethod(plain_history)

    def __init__(self, client: str, socket: Path, version: str) -> None:
        self._docker = [client, "-H", f"unix://{socket}"]
        self.version = version

    def build(self, case: Case, arguments: list[str], stdin: bytes, archive: Path) -> Answer:
        network = [] if "--network" in arguments else ["--network=host"]
        command = [*self._docker, "build", "--progress=plain", *network, "-t", "case", *arguments]
        env = {"DOCKER_BUILDKIT": "1", **case.expect.get("env", {})}
        answer = run(command, stdin=stdin, env=env)
        if "Cannot connect to the Docker daemon" in answer.message:
            raise RuntimeError(f"dockerd ended while it built {case.name}")
        return run([*self._docker, "save", "-o", archive, "case"]) if answer.built else answer

    def add_base(self, base: Path) -> None:
        tar = subprocess.run(["tar", "-C", base, "--numeric-owner", "--owner=0", "--group=0", "-c", "."], capture_output=True, check=True)
        subprocess.run([*self._docker, "import", "-", BASE], input=tar.stdout, capture_output=True, check=True)


@contextlib.contextmanager
def docker(folder: Path, base: Path) -> Iterator[Docker | None]:
    """A running daemon, None where none is installed."""
    client = next((path for path in ("/usr/bin/docker", shutil.which("docker")) if path and os.path.exists(path)), None)
    if client is None or shutil.which("dockerd") is None:
        yield None
        return
    folder.mkdir()
    socket = folder / "socket"
    command = [
        "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--exec-opt", "native.cgroupdriver=cgroupfs",
        "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid", "-H", f"unix://{socket}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)
    try:
        until = time.monotonic() + _START
        while not (version := run([client, "-H", f"unix://{socket}", "version", "--format", "{{.Server.Version}}"])).built:
            if daemon.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"dockerd does not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.2)
        made = Docker(client, socket, version.message.strip())
        made.add_base(base)
        yield made
    finally:
        daemon.terminate()
        daemon.wait(timeout=60)
        # A daemon that died by itself leaves its data root mounted on itself.
        subprocess.run(["umount", "-l", folder / "data"], capture_output=True, check=False)
