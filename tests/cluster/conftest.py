"""Machines in network namespaces, where those can be made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from wires import why_not


@pytest.fixture(autouse=True, scope="session")
def _namespaces() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
