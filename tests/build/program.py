"""The program as a user starts it, in a directory of its own; and a base to build on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BUSYBOX = "/bin/busybox"
APPLETS = (
    "sh", "ash", "yes", "echo", "cat", "ls", "true", "false", "mkdir", "rm", "rmdir", "touch", "id", "env", "sleep", "cp",
    "mv", "ln", "stat", "find", "grep", "chmod", "chown", "head", "tail", "wc", "seq", "dd", "mkfifo", "mknod", "test",
    "sort", "sed", "printf", "hostname", "sha256sum", "readlink", "truncate", "kill", "ps", "mount", "umount", "tar",
    "expr", "date", "od", "tr", "cut", "basename", "dirname", "pwd", "nc", "wget", "httpd", "ip", "su", "whoami",
)  # fmt: skip


def make_busybox(directory: Path) -> Path:
    """A root filesystem with busybox, its applets, a few users and an empty /tmp."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for applet in APPLETS:
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc").mkdir()
    (directory / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:app\n")
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    for path in directory.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1_600_000_000, 1_600_000_000))
    return directory


@dataclass
class Ran:
    """One call of the program. events: of `--progress rawjson`."""

    code: int
    stdout: str
    stderr: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def executed(self) -> list[str]:
        """Ids of the steps that ran, in the order in which they ended."""
        return [e["id"] for e in self.events if e["event"] == "finished" and e["status"] == "done"]

    @property
    def cached(self) -> list[str]:
        return [e["id"] for e in self.events if e["event"] == "finished" and e["status"] == "cached"]

    def output(self, node: str) -> list[str]:
        """The lines that a step printed."""
        return [e["line"] for e in self.events if e["event"] == "printed" and e["id"] == node]

    def ok(self) -> Ran:
        assert self.code == 0, f"exit code {self.code}\n{self.stderr[-4000:]}"
        return self

    def failed(self, code: int) -> Ran:
        assert self.code == code, f"exit code {self.code}, not {code}\n{self.stderr[-4000:]}"
        assert "Traceback" not in self.stderr, self.stderr
        return self


class Program:
    """Calls the program with one store. root: where projects are made. busybox: a root filesystem to build on."""

    def __init__(self, root: Path, busybox: Path, env: dict[str, str] | None = None) -> None:
        self.root = root
        self.store = root / "store"
        self.busybox = busybox
        self.env = {**os.environ, "BUILDGRAPH_STORE": str(self.store), **(env or {})}
        for name in ("SOURCE_DATE_EPOCH", "BUILDGRAPH_PROGRESS", "BUILDKIT_PROGRESS"):
            if name not in (env or {}):
                self.env.pop(name, None)

    def project(self, dockerfile: str, files: dict[str, str | bytes] | None = None, name: str = "project") -> Path:
        """A context with a Dockerfile and files."""
        directory = self.root / name
        directory.mkdir(exist_ok=True, parents=True)
        (directory / "Dockerfile").write_text(dockerfile)
        for path, data in (files or {}).items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data if isinstance(data, bytes) else data.encode())
        return directory

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "compiler", *map(str, arguments)]

    def call(self, *arguments: str | Path, **options: Any) -> Ran:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, env=self.env, timeout=120, check=False, **options
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode("utf-8", "replace"))

    def build(self, context: Path, *arguments: str | Path, **options: Any) -> Ran:
        """`build` with the busybox base as the named context `busybox`, and its events."""
        ran = self.call("build", context, *self.base(), "--progress", "rawjson", *arguments, **options)
        rest = []
        for line in ran.stderr.splitlines():
            if line.startswith("{"):
                ran.events.append(json.loads(line))
            else:
                rest.append(line)
        ran.stderr = "\n".join(rest)
        return ran

    def plan(self, context: Path, *arguments: str | Path) -> dict[str, Any]:
        ran = self.call("plan", context, *self.base(), "--format", "json", *arguments).ok()
        document: dict[str, Any] = json.loads(ran.stdout)
        return document

    def statuses(self, context: Path, *arguments: str | Path) -> dict[str, str]:
        """Node id → hit, miss or depends, of steps."""
        return {
            node["id"]: node["status"]
            for node in self.plan(context, *arguments)["nodes"]
            if node["kind"] in ("run", "copy", "add", "workdir")
        }

    def base(self) -> list[str]:
        return ["--build-context", f"busybox={self.busybox}"]

    def files(self, context: Path, *arguments: str | Path) -> Path:
        """Build, and the root filesystem as a directory."""
        target = self.root / f"out-{len(list(self.root.iterdir()))}"
        self.build(context, "-o", f"type=local,dest={target}", *arguments).ok()
        return target

    def config(self, name: str) -> dict[str, Any]:
        """The config of an image of the store."""
        found: dict[str, Any] = json.loads(self.call("image", "inspect", name).ok().stdout)
        return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
