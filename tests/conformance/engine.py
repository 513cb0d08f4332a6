"""Engine: another builder of Dockerfiles that the cases are given to, and what it is known not to have."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from case import Case

BASE = "busybox:latest"
LONGEST = 180.0
"""Seconds that one build may take."""


class Answer(NamedTuple):
    """What an engine made of a case. message: the end of what it said if it failed."""

    built: bool
    message: str


class Engine(Protocol):
    """lacks: expression of a Dockerfile or its options → what the engine does not know. quirks: expression of a
    difference → why it is no error of ours. history: brings a line of history into a form that all versions of the
    engine would write; None if its texts are of another kind altogether."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def lacks(self) -> Sequence[tuple[str, str]]: ...

    @property
    def quirks(self) -> Sequence[tuple[str, str]]: ...

    @property
    def history(self) -> Callable[[str], str] | None: ...

    def build(self, case: Case, arguments: list[str], stdin: bytes, archive: Path) -> Answer:
        """Build, and write the image as `docker save` does."""
        ...


def lacking(engine: Engine, case: Case) -> str:
    """Why the engine cannot be asked about this case, "" if it can."""
    for reason in (case.expect.get("engines", {}).get(engine.name), case.expect.get("engines", {}).get("all")):
        if reason:
            return str(reason)
    options = " ".join(case.expect.get("build", []) + case.expect.get("options", []))
    text = f"{case.dockerfile.read_bytes().decode('utf-8-sig')}\n{options}\n{' '.join(case.expect.get('env', {}))}"
    text += "\n" + " ".join(case.expect.get("context", {}).get("archives", {}))
    return next((reason for pattern, reason in engine.lacks if re.search(pattern, text, re.MULTILINE)), "")


def mount_points(case: Case) -> set[str]:
    """Targets of `RUN --mount` and the directories above them."""
    text = case.dockerfile.read_text("utf-8-sig")
    targets = re.findall(r"(?:target|dst|destination)=/([^\s,'\"]+)", text, re.IGNORECASE)
    targets += ["run/secrets"] if "type=secret" in text else []
    parts = [target.split("/") for target in targets]
    return {"/" + "/".join(names[: count + 1]) for names in parts for count in range(len(names))}


def run(command: Sequence[str | Path], *, stdin: bytes = b"", env: dict[str, str] | None = None) -> Answer:
    """One command of an engine."""
    try:
        done = subprocess.run(
            [*map(str, command)], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})}, timeout=LONGEST, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Answer(False, f"took more than {LONGEST:.0f} s")
    return Answer(done.returncode == 0, done.stdout.decode("utf-8", "replace")[-2000:])
