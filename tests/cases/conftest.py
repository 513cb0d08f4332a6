"""Builds the cases that were asked for, a few at a time, and says how many ran."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from case import FOLDER, Case
from runner import Outcome, Runner
from services import services

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busybox: Path
) -> Iterator[dict[str, Future[Outcome]]]:
    """Case name → its build, for all that this session runs; a start of the program waits more than it works."""
    folder = tmp_path_factory.mktemp("cases")
    wanted = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    cases = {case.name: case for case in wanted if isinstance(case, Case)}
    with services(folder / "services", FOLDER / "served") as places:
        runner = Runner(folder, busybox, places)
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1) + 1) as pool:
            yield {name: pool.submit(runner.build, case) for name, case in cases.items()}
            pool.shutdown(cancel_futures=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = {
        outcome: sum("test_case[" in report.nodeid for report in terminalreporter.stats.get(outcome, []))
        for outcome in ("passed", "failed", "error")
    }
    if any(counts.values()):
        failed = counts["failed"] + counts["error"]
        terminalreporter.write_line(f"build cases: {counts['passed'] + failed} ran, {failed} failed")
