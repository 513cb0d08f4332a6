"""The examples do what their pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: Path, directory: Path, **env: str) -> str:
    """What the script printed; it must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [script, directory],
        env={**os.environ, "PATH": path, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def section(output: str, heading: str) -> str:
    """What stands under a heading."""
    return output.split(f"── {heading}")[1].split("\n── ")[0]


@pytest.mark.parametrize("runner", ["podman", "crun"])
def test_demo(tmp_path: Path, runner: str) -> None:
    output = run(EXAMPLES / "demo/run.sh", tmp_path, RUN_IMAGE_WITH=runner)
    assert "0 cached" in section(output, "what a build would do\n")
    assert "10 ran, 0 cached" in section(output, "the build:")
    assert "the compiler passed 2 checks" in section(output, "the build:")
    assert "nothing to do: 10 steps are cached" in section(output, "what a build would do now")
    assert " 0 ran, " in section(output, "the same build again")
    assert " 1 ran, " in section(output, "another ARG")
    assert (tmp_path / "image/oci-layout").exists()
    running = section(output, "the image, running")
    assert running.split("\n")[1:4] == ["Hello, world!", "Saluton, world!", "Ciao, from the inside!"]


def test_nginx(tmp_path: Path) -> None:
    output = run(EXAMPLES / "nginx/run.sh", tmp_path)

    sizes = section(output, "sizes")
    above = {name: float(mb) for name, mb in re.findall(r"(\w+) .* ([\d.]+) MB above the base", sizes)}
    assert above["single"] > 90
    assert above["multi"] < 3

    first, second = (
        float(found.group(1))
        for heading in ("one stage", "two stages")
        if (found := re.search(r"total +\d+ +([\d.]+) MiB", section(output, heading)))
    )
    assert second - first < 3, "the store took the base or the first stage twice"

    pushed = {
        name: (int(blobs), float(mb))
        for name, blobs, mb in re.findall(r"(\w+) +(\d+) blobs, ([\d.]+) MB", section(output, "both pushed"))
    }
    assert pushed["single"][1] > 50
    assert pushed["multi"][0] == 2, "a layer and a config"
    assert pushed["multi"][1] < 3
    assert "Welcome to nginx!" in section(output, "the two-stage image, serving")

    assert_says_nothing_of_its_origin(tmp_path / "base")


def assert_says_nothing_of_its_origin(layout: Path) -> None:
    """No apt sources, names or addresses of the machine that made the base are in it."""
    layer = max((layout / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    with tarfile.open(layer) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert "usr/bin/apt-get" in names
    unwanted = re.compile(
        r"etc/(hostname|resolv\.conf|apt/(sources\.list|auth\.conf)(\.d/.+)?)|var/lib/apt/lists/.*_.*"
    )
    assert not sorted(filter(unwanted.fullmatch, names))
