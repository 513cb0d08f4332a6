"""Runner: builds cases with the program, all on one store."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from image_archive import Image, read_image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from case import Case

_LONGEST = 120.0
"""Seconds that one case may take."""
_UNSET = ("SOURCE_DATE_EPOCH", "BUILDGRAPH_PROGRESS", "BUILDKIT_PROGRESS", "SSH_AUTH_SOCK")


class Outcome(NamedTuple):
    """What came of one build. image: None if it failed or if the case looks at its archive only."""

    code: int
    stderr: str
    image: Image | None
    archive: Path


class Runner:
    """folder: where contexts, archives and the store go. places: of the services. base: directory of `busybox`."""

    def __init__(self, folder: Path, base: Path, places: Mapping[str, str]) -> None:
        self._folder = folder
        self._base = base
        self._places = places
        # Builds run in threads, while pytest writes to the environment.
        self._env = {name: value for name, value in os.environ.items() if name not in _UNSET}

    def build(self, case: Case) -> Outcome:
        """Any failure of the program is an Outcome, not an exception."""
        folder = self._folder / case.name
        context = case.make_context(folder / "context")
        archive = folder / "image.tar"
        kind = case.expect.get("output", "docker")
        env = {**self._env, "BUILDGRAPH_STORE": str(self._folder / "store"), **case.expect.get("env", {})}
        command = [sys.executable, "-m", "compiler", "build", *case.arguments(context, self._places)]
        command += ["--build-context", f"busybox={self._base}", "-o", f"type={kind},dest={archive}", "--progress", "plain"]
        done = subprocess.run(
            command, input=case.stdin(context), capture_output=True, env=env, timeout=_LONGEST, check=False
        )
        image = read_image(archive) if done.returncode == 0 and kind == "docker" else None
        return Outcome(done.returncode, done.stderr.decode("utf-8", "replace"), image, archive)
