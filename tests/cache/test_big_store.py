"""A store of 100,000 records and 10 GB, sparse: plan, du and prune stay within what was promised."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

import big_store


@pytest.mark.slow
def test_a_large_store_stays_quick_and_lean(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in big_store.measure(tmp_path)}
    assert figures["records"].value >= 100_000
    # How long Python takes to start is another matter, and depends on what else the machine does.
    assert figures["plan"].value - figures["plan, empty store"].value < 0.1
    broken = [f for f in figures.values() if f.limit is not None and f.value > f.limit and f.name != "plan"]
    assert not broken
    assert figures["GB left in files"].value > 4.5, "no more went than was asked for"
