"""What all tests share: a busybox base, and the program with a store of its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent / "build"))

from program import Program, make_busybox

from cache.run_dir import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell that starts the tests in the background has interrupts ignored, which the programs under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The program is started thousands of times: as with users, it is compiled only the first time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Busy machines are slow, which is no failure; and the examples are the same each time, so that no commit fails for what
# another one did. BUILDGRAPH_TEST_RANDOM=1 looks for new ones.
hypothesis.settings.register_profile(
    "buildgraph",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=os.environ.get("BUILDGRAPH_TEST_RANDOM", "") in ("", "0"),
)
hypothesis.settings.load_profile("buildgraph")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork a keeper out of this process go first: once gRPC was used in it, nothing may fork any more, as
    no build does (it forks before it asks a remote)."""
    items.sort(key=lambda item: item.path.name not in ("test_keeper.py", "test_log_tail.py"))


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_busybox(tmp_path_factory.mktemp("busybox") / "rootfs")


@pytest.fixture
def program(tmp_path: Path, busybox: Path) -> Iterator[Program]:
    """The program as this user, with whatever way to mount layers this machine has."""
    made = Program(tmp_path, busybox)
    yield made
    assert_nothing_left(made)
    clear(made)


@pytest.fixture(params=["erofs", "dirs"])
def each_way(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Iterator[Program]:
    """The program with each way to mount layers."""
    if request.param == "erofs" and os.geteuid() != 0:
        pytest.skip("only root can mount EROFS")
    made = Program(tmp_path, busybox, {"BUILDGRAPH_SNAPSHOTTER": request.param})
    yield made
    assert_nothing_left(made)
    clear(made)


def clear(program: Program) -> None:
    """Remove the store: pytest's own clean-up does not survive trees as deep as some tests make."""
    for store in program.root.glob("*store*"):
        if (store / "data.mdb").exists() and os.geteuid() != 0:
            program.call("cache", "clear", "--store", store).ok()
        remove_tree(str(store))


def assert_nothing_left(program: Program) -> None:
    """I6: no mount, no scratch directory, no lease outlives the program."""
    mounts = Path("/proc/self/mounts").read_text()
    assert str(program.store) not in mounts
    for name in ("runs", "leases"):
        left = list((program.store / name).iterdir()) if (program.store / name).exists() else []
        assert not left, f"left in {name}: {left}"
