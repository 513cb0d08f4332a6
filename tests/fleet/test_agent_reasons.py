"""What a worker says of how a step ended: nowhere a secret of it."""

from __future__ import annotations

import queue
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import until
from worker_alone import WorkerAlone

from cache.errors import DefinitionError, EnvironmentProblem
from worker.action import CommandFailed
from worker.fleet.foreign import without_secrets
from worker.fleet.sealing import ClientSeal
from worker.operation import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.action import Order

SECRET = "correct horse"
FILE = f"/out/{SECRET}/battery"


@pytest.fixture
def fails(tmp_path: Path) -> Iterator[tuple[WorkerAlone, queue.Queue[Exception]]]:
    """A worker whose step ends with what is put there."""
    errors: queue.Queue[Exception] = queue.Queue()

    def execute(order: Order) -> None:
        assert order.secrets == {"token": SECRET.encode()}
        raise errors.get(timeout=10)

    worker = WorkerAlone(tmp_path, execute)
    yield worker, errors
    worker.close()


def failed() -> CommandFailed:
    error = CommandFailed(1, [f"no {FILE}"])
    error.message = error.hint = f"no {FILE}"
    return error


ENDS = (
    DefinitionError(f"cannot mount at {FILE}: it is not a directory", hint=f"remove {FILE}"),
    failed(),
    EnvironmentProblem(f"cannot read what the step wrote: No such file or directory: {FILE!r}"),
    OSError(2, "No such file or directory", FILE),
    RuntimeError(f"{FILE} was not expected"),
)


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_a_reason_that_names_a_secret_is_told_without_it(fails: tuple[WorkerAlone, queue.Queue[Exception]], error: Exception) -> None:
    worker, errors = fails
    line = worker.line()
    line.lease((Mount("secret", "/run/secrets/token", id="token"),), secrets=["token"])
    line.give(ClientSeal("boot.1", line.take("started").seal_key), {"token": SECRET.encode()})
    errors.put(error)
    kinds = ("done", "given_back")
    while (message := line.came.get(timeout=10)).WhichOneof("message") not in kinds:
        pass
    assert "/out/[secret]/battery" in str(message)
    assert SECRET not in str(message)
    until(lambda: any("/out/[secret]/battery" in text for text in worker.said))
    assert SECRET not in "".join(worker.said)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"one line\nanother line\n", "cannot read 'another line'"), (b"with\ta tab", "cannot read 'with\\ta tab'"),
        (b"whole\nof two", "cannot read 'whole\nof two'"), (b"  stripped  ", "cannot read /stripped/"),
    ],
)  # fmt: skip
def test_lines_of_secrets_and_how_python_writes_them_are_taken_out_too(value: bytes, text: str) -> None:
    shown: Any = without_secrets({"token": value, "short": b"not"})(text)
    assert "[secret]" in shown
    assert "cannot read" in shown
    assert not any(part in shown for part in ("line", "tab", "whole", "two", "stripped"))
