"""A fleet of a thousand workers in simulated time: the limits of the bench are a test, too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_hundred_builds_on_a_thousand_workers() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.scheduler"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = re.findall(r"^(.+): (\d+) workers, (\d+) builds of (\d+) nodes", done.stdout, re.MULTILINE)
    assert ("as measured", "1000", "200", "50") in sizes
    found = re.findall(r"^  (scheduler|first come) +makespan +[\d.]+ s = +([\d.]+) of the bound", done.stdout, re.MULTILINE)
    ratios = [float(ratio) for _, ratio in found]
    assert [name for name, _ in found] == ["scheduler", "first come"] * len(sizes)
    assert all(ours < theirs for ours, theirs in zip(ratios[::2], ratios[1::2], strict=True)), done.stdout
    assert ratios[0] <= 1.15
