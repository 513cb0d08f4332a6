"""`build --load`: hand the image to docker or podman."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from cache.errors import BuildgraphError, EnvironmentProblem
from compiler.export.export import export
from compiler.export.output import parse_output
from compiler.progress.events import Task
from compiler.remote_cache import LayerGone

if TYPE_CHECKING:
    from compiler.export.built import BuiltImage
    from compiler.progress.events import Reporter
    from compiler.session import Session

ENGINES = ("docker", "podman")
ANSWER_SECONDS = 10.0
"""How long an engine may take to say that it is there."""


def load(image: BuiltImage, session: Session, reporter: Reporter) -> None:
    """Stream the image into the first engine that answers. Raises EnvironmentProblem."""
    engine = _engine()
    name = f"loading into {engine}"
    started = time.monotonic()
    reporter.report(Task(name, "started", 0.0))
    process = subprocess.Popen([engine, "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    failure: BuildgraphError | None = None
    try:
        export(
            parse_output("type=docker,dest=-"), image, store=session.store, library=session.library,
            images=session.images, report=lambda _: None, stdout=process.stdin.fileno(),
        )  # fmt: skip
    except BuildgraphError as error:
        failure = error  # the engine's own words say more, if it gave up first
    _, errors = process.communicate()
    if isinstance(failure, LayerGone):
        raise failure  # it goes on when the layer was made
    if process.returncode != 0:
        reporter.report(Task(name, "failed", time.monotonic() - started))
        raise EnvironmentProblem(f"{engine} load failed: {errors.decode(errors='replace').strip()[-500:]}")
    if failure is not None:
        raise failure
    reporter.report(Task(name, "done", time.monotonic() - started))


def _engine() -> str:
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        try:
            asked = subprocess.run([engine, "info"], capture_output=True, timeout=ANSWER_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            continue
        if asked.returncode == 0:
            return engine
    raise EnvironmentProblem(
        "--load needs docker or podman, and neither answers", hint="write a file: -o type=docker,dest=FILE"
    )
