"""Bazel: a workspace that needs nothing from outside, and what Bazel says of its builds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from packages import Packages, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

ACTIONS = 4
"""Of the workspace."""
LARGE = 6_000_000
"""Bytes of one output: more than a message holds, so it travels as a stream."""
BUILD = f"""
genrule(name = "a", outs = ["a.txt"], cmd = "echo made > $@")
genrule(name = "b", srcs = ["a.txt", "in.txt"], outs = ["b.txt"], cmd = "cat $(SRCS) > $@")
genrule(name = "large", outs = ["large.bin"], cmd = "head -c {LARGE} /dev/zero | tr '\\\\0' x > $@")
genrule(name = "end", srcs = ["b.txt", "large.bin"], outs = ["end.txt"], cmd = "cat $(SRCS) | cksum > $@")
"""
# What apt would install besides is in the program's own archive, but for these libraries.
DEBIAN = ("bazel-bootstrap", "bazel-bootstrap-data", "libgrpc++1.51", "libgrpc29", "libprotoc32", "libprotobuf32", "libc-ares2", "libre2-9", "libabsl20220623")


class Built(NamedTuple):
    """code: Bazel's exit code. text: all that it said."""

    code: int
    text: str

    @property
    def hits(self) -> int:
        return self._processes(r"remote cache hit")

    @property
    def ran(self) -> int:
        """Actions that ran here."""
        return self._processes(r"(?:linux-sandbox|processwrapper-sandbox|local)")

    def _processes(self, kind: str) -> int:
        line = re.search(r"INFO: [0-9]+ process(?:es)?: (.*)", self.text)
        found = re.search(rf"([0-9]+) {kind}\b", line[1]) if line else None
        return int(found[1]) if found else 0

    def ok(self) -> Built:
        assert self.code == 0, self.text
        return self


class Bazel:
    """One version of it. Each call is a process that ends."""

    def __init__(self, version: str, command: list[str], env: dict[str, str], root: Path) -> None:
        self.version = version
        self._command = [*command, "--batch", "--nohome_rc", "--nosystem_rc", f"--output_user_root={root}"]
        self._env = env

    def workspace(self, directory: Path, text: str = "hello\n") -> Path:
        directory.mkdir(parents=True)
        (directory / "WORKSPACE").write_text('workspace(name = "small")\n')
        (directory / "BUILD").write_text(BUILD)
        (directory / "in.txt").write_text(text)
        return directory

    def build(self, workspace: Path, *arguments: str) -> Built:
        return self._run(workspace, "build", "//:end", "--color=no", "--curses=no", "--show_progress_rate_limit=60", *arguments)

    def clean(self, workspace: Path) -> None:
        self._run(workspace, "clean", "--expunge").ok()
        assert not (workspace / "bazel-bin").exists()

    def _run(self, workspace: Path, *arguments: str) -> Built:
        done = subprocess.run(
            [*self._command, *arguments], cwd=workspace, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        return Built(done.returncode, done.stdout)


def bazel_of_npm(packages: Packages, directory: Path) -> Bazel:
    """2.1, which brings its own Java. Raises Unavailable."""
    program = next(packages.npm("@bazel/bazel-linux_x64@2.1.0").glob("bazel-*"))
    program.chmod(0o755)
    return Bazel("2.1", [str(program)], environment(directory), directory / "bazel-2.1")


def bazel_of_debian(packages: Packages, directory: Path) -> Bazel:
    """4.2, which needs a Java. Raises Unavailable."""
    if shutil.which("javac") is None:
        raise Unavailable("Debian's Bazel needs a Java development kit; there is none here")
    root = packages.debian(*DEBIAN)
    archive = next(root.parent.glob("bazel-bootstrap_*.deb")).name
    if not archive.startswith("bazel-bootstrap_4.2."):
        raise Unavailable(f"Debian's Bazel is {archive} here, not 4.2")
    base = root / "usr/share/bazel"
    env = {**environment(directory), "LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu")}
    return Bazel("4.2", [str(root / "usr/bin/bazel-4"), f"--install_base={base}", "--trust_install_base"], env, directory / "bazel-4.2")


def environment(home: Path) -> dict[str, str]:
    """Of a program that shall find no settings of whoever runs the tests."""
    return {"HOME": str(home), "USER": "tester", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
