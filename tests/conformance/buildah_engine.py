"""buildah, with a storage of its own."""

from __future__ import annotations

import contextlib
import resource
import shutil
from typing import TYPE_CHECKING

from engine import BASE, Answer, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from case import Case

_OPEN_FILES = 20000
"""buildah closes every descriptor up to the limit before each step; a limit of a million costs seconds."""
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
    (r"^ *RUN .*--network", "RUN --network"),
    (r"\$\{\w+(#|%|/|[-+?])", "modifiers beyond :- :+ :?"),
    (r"type=secret\S*,env=", "secrets in the environment"),
    (r"SOURCE_DATE_EPOCH", "SOURCE_DATE_EPOCH"),
    (r"--network|--ulimit|--shm-size|--add-host", "networks and limits with --isolation chroot"),
    (r"--platform linux/amd64,", "a plain archive of several platforms"),
    (r"--ssh", "an agent that answers"),
)
_QUIRKS = (
    (r"^(/dev|/proc|/sys|/run|/etc/hosts|/etc/resolv.conf|/etc/hostname|/run/.*)(/.*)? ", "its mount points of RUN stay in the layer"),
    (r"^config Labels", "it labels images with its version"),
    (r"^config WorkingDir: .* there (''|None)", "BuildKit sets / where nothing is said"),
    (r"^config Env: ", "it adds no PATH where the base has none"),
)


class Buildah:
    """One storage."""

    name = "buildah"
    lacks = _LACKS
    quirks = _QUIRKS
    history = None

    def __init__(self, folder: Path, version: str) -> None:
        self._buildah = ["buildah", "--storage-driver", "vfs", "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self.version = version

    def build(self, case: Case, arguments: list[str], stdin: bytes, archive: Path) -> Answer:
        options = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false", "-t", "localhost/case"]
        context, *others = arguments  # which has to stand behind all options here
        answer = run([*self._buildah, "build", *options, *others, context], stdin=stdin, env=case.expect.get("env", {}))
        if not answer.built:
            return answer
        answer = run([*self._buildah, "push", "localhost/case", f"docker-archive:{archive}:case"])
        run([*self._buildah, "rmi", "localhost/case"])
        return answer

    def add_base(self, base: Path) -> None:
        name = "base"
        for command in (["from", "--name", name, "scratch"], ["add", name, base, "/"], ["commit", name, f"docker.io/library/{BASE}"], ["rm", name]):
            answer = run([*self._buildah, *command])
            if not answer.built:
                raise RuntimeError(answer.message)


@contextlib.contextmanager
def buildah(folder: Path, base: Path) -> Iterator[Buildah | None]:
    """A storage with the base in it, None where buildah is not installed."""
    if shutil.which("buildah") is None:
        yield None
        return
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, most), most))
    made = Buildah(folder, run(["buildah", "--version"]).message.split()[2])
    made.add_base(base)
    yield made
