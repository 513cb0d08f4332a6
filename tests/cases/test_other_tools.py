"""Every image that the cases make is read by skopeo and unpacked by umoci."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from case import Case, load

from cache.run_dir import remove_tree

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from runner import Outcome

IMAGES = [case for case in load() if "error" not in case.expect and "output" not in case.expect]


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("case", IMAGES, ids=[case.name for case in IMAGES])
def test_others_read_it(case: Case, outcomes: dict[str, Future[Outcome]], tmp_path: Path) -> None:
    outcome = outcomes[case.name].result()
    assert outcome.code == 0, outcome.stderr
    seen = json.loads(run("skopeo", "inspect", f"docker-archive:{outcome.archive}"))
    assert outcome.image is not None
    assert seen["Os"] == "linux"
    run("skopeo", "copy", "-q", f"docker-archive:{outcome.archive}", f"oci:{tmp_path / 'layout'}:case")
    options = [] if os.geteuid() == 0 else ["--rootless"]
    # raw: only the files; a whole bundle needs the image's USER to be in it, and one case is about a USER that is not.
    run("umoci", "raw", "unpack", *options, "--image", f"{tmp_path / 'layout'}:case", tmp_path / "files")
    assert (tmp_path / "files").is_dir()
    remove_tree(str(tmp_path))
