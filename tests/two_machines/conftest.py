"""Machines in network namespaces, where those can be made."""

from __future__ import annotations

import pytest

from bench.networks import why_not


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
