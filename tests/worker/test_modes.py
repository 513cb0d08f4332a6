"""--chmod's modes, compared with what chmod(1) does."""

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.modes import apply_mode, check_mode

if TYPE_CHECKING:
    from pathlib import Path

clauses = st.from_regex(r"\A[ugoa]{0,3}([-+=]([rwxXst]{0,4}|[ugo])){1,2}\Z")
specs = st.lists(clauses, min_size=1, max_size=3).map(",".join)


@pytest.mark.parametrize("directory", [False, True])
@given(spec=specs, start=st.integers(0, 0o7777))
@settings(deadline=None, max_examples=60)
def test_as_chmod_does_it(tmp_path_factory: pytest.TempPathFactory, directory: bool, spec: str, start: int) -> None:
    path: Path = tmp_path_factory.mktemp("m") / "x"
    path.mkdir() if directory else path.touch()
    path.chmod(start)
    done = subprocess.run(["sh", "-c", 'umask 0; exec chmod -- "$0" "$1"', spec, path], capture_output=True, check=False)
    check_mode(spec)
    assert done.returncode == 0, done.stderr
    assert f"{apply_mode(spec, start, directory=directory):o}" == f"{path.stat().st_mode & 0o7777:o}", spec


@pytest.mark.parametrize("spec", ["", "u", "z+x", "+q", "8", "77777", "u+x,", "u+rwx go"])
def test_what_is_no_mode(spec: str) -> None:
    with pytest.raises(ValueError):
        check_mode(spec)
