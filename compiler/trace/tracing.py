"""Tracing: a view behind a view that keeps what is reported, and gives it to other programs when the build ends."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from cache.errors import BuildgraphError, EnvironmentProblem, UsageError
from compiler.progress.events import Ended, Warned
from compiler.trace.chronicle import Chronicle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiler.progress.events import Event, Reporter
    from compiler.trace.timeline import Timeline


def traced(reporter: Reporter, path: str, environment: Mapping[str, str]) -> Reporter:
    """The same view if nobody wants a trace. path: of the file to write, "" for none.

    Raises UsageError, EnvironmentProblem for a file that cannot be.
    """
    from compiler.trace.otel import endpoint_problem, is_wanted

    if path:
        _check(path)
    wanted = is_wanted(environment)
    if wanted:
        problem = endpoint_problem(environment)
        if problem:
            reporter.report(Warned(problem))
            wanted = False
    return TracingReporter(reporter, path, environment if wanted else None) if path or wanted else reporter


class TracingReporter:
    """Hands everything on. What goes wrong with a trace is a warning, and never the build's end."""

    def __init__(self, reporter: Reporter, path: str, environment: Mapping[str, str] | None) -> None:
        """environment: says where spans are sent, None for nowhere."""
        self._reporter = reporter
        self._path = path
        self._environment = environment
        # The clock may be set while the build runs, and bars must not.
        self._epoch = time.time() - time.monotonic()
        self._lock = threading.Lock()
        self._chronicle = Chronicle(time.time())
        self._over = False

    def report(self, event: Event) -> None:
        with self._lock:
            if not self._over:
                self._chronicle.take(event, self._epoch + time.monotonic())
        if isinstance(event, Ended):
            self._finish()
        self._reporter.report(event)

    def close(self) -> None:
        try:
            self._finish()
        finally:
            self._reporter.close()

    def _finish(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            timeline = self._chronicle.timeline()
        if self._path:
            self._write(timeline)
        if self._environment is not None:
            from compiler.trace.otel import send

            problem = send(timeline, self._environment)
            if problem:
                self._reporter.report(Warned(problem))

    def _write(self, timeline: Timeline) -> None:
        from compiler.export.destination import new_file
        from compiler.trace.chrome import chrome_bytes

        data = memoryview(chrome_bytes(timeline))
        try:
            with new_file(self._path) as fd:
                while data:
                    data = data[os.write(fd, data) :]
        except BuildgraphError as error:
            self._reporter.report(Warned(f"the trace could not be written: {error.message}"))


def _check(path: str) -> None:
    """Before a build that takes an hour."""
    if os.path.isdir(path):
        raise UsageError(f"--trace {path}: it is a directory, and a file is needed")
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise EnvironmentProblem(f"--trace {path}: there is no directory {directory}")
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        raise EnvironmentProblem(f"--trace {path}: it cannot be written")
