"""A store of 100,000 records and 10 GB, sparse: plan, du and prune stay within what was promised."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

import big_store

WHOLE_SECONDS = ("plan", "prune to half")
"""What depends on how long Python takes to start, and on what else the machine does: `make bench` measures it."""


@pytest.mark.slow
@pytest.mark.alone
def test_a_large_store_stays_quick_and_lean(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in big_store.measure(tmp_path)}
    assert figures["records"].value >= 100_000
    assert figures["plan, steps that hit"].value == big_store.STEPS, "the plan finds what was built there"
    alone = figures["plan, store of its own, computed"].value
    assert figures["plan, computed"].value < 1.3 * alone, "a hundred thousand records make no plan slower"
    limited = [f for f in figures.values() if f.limit is not None and f.name not in WHOLE_SECONDS]
    assert len(limited) >= 5
    assert not [f for f in limited if f.limit is not None and f.value > f.limit]
    assert figures["GB left in files"].value > 4.5, "no more went than was asked for"
