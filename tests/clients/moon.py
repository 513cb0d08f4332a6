"""moon: a workspace with two tasks, and what moon says of running them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from bazel import environment

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 5_000_000
"""Bytes of one output: more than a message holds, so it travels as a stream."""
PROJECT = f"""
language: unknown
tasks:
  build:
    script: mkdir -p dist && head -c {LARGE} /dev/zero | tr '\\0' x > dist/large && cat in.txt > dist/text
    inputs: [in.txt]
    outputs: [dist]
  pack:
    script: cksum dist/large dist/text > packed.txt
    deps: [build]
    inputs: [in.txt]
    outputs: [packed.txt]
"""


class Moon:
    """Runs the tasks of a workspace below `root`."""

    def __init__(self, program: Path, root: Path) -> None:
        program.chmod(0o755)
        self._program = program
        self._root = root
        self.env = {**environment(root), "MOON_HOME": str(root / "moon-home"), "NO_COLOR": "1"}

    def workspace(self, remote: dict[str, Any]) -> Path:
        """remote: moon's settings of that name."""
        directory = self._root / "workspace"
        (directory / ".moon").mkdir(parents=True)
        (directory / "app").mkdir()
        # A JSON document is a YAML one, too.
        settings = {"projects": {"app": "app"}, "telemetry": False, "remote": remote}
        (directory / ".moon/workspace.yml").write_text(json.dumps(settings))
        (directory / "app/moon.yml").write_text(PROJECT)
        (directory / "app/in.txt").write_text("hello\n")
        for command in (["init", "-q", "."], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first"]):
            subprocess.run(["git", *command], cwd=directory, env=self.env, check=True)
        return directory

    def run(self, workspace: Path) -> str:
        """All that it said."""
        command = [str(self._program), "run", "app:pack"]
        done = subprocess.run(
            command, cwd=workspace, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def clean(self, workspace: Path) -> None:
        """All outputs, and moon's own cache."""
        shutil.rmtree(workspace / ".moon/cache")
        shutil.rmtree(workspace / "app/dist")
        (workspace / "app/packed.txt").unlink()


def hits(text: str) -> int:
    return len(re.findall(r"cached from remote", text))
