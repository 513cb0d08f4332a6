"""The nginx example on two machines: the second runs what changed, and moves what is new."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.two_machines import Round, Step, fetch, measure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Round:
    """BUILDGRAPH_NGINX_EXAMPLE: a directory that keeps the base and the source for the next time."""
    given = os.environ.get("BUILDGRAPH_NGINX_EXAMPLE")
    kept = Path(given) if given else tmp_path_factory.mktemp("kept")
    fetch(kept)
    return measure(tmp_path_factory.mktemp("machines"), kept)


def step(measured: Round, name: str) -> Step:
    found = next(each for each in measured.steps if each.name == name)
    for built in found.built:
        assert not built.warnings
        assert "Traceback" not in built.errors
    return found


def test_the_second_machine_runs_nothing_and_moves_no_layer(measured: Round) -> None:
    built, hit = step(measured, "A builds both images"), step(measured, "B builds both images")
    assert built.ran > 5
    assert built.wire > 50e6
    assert hit.ran == 0
    assert hit.blobs == 0, "no blob at all"
    assert hit.wire < 100_000
    again = step(measured, "B again")
    assert again.ran == 0
    assert again.wire == 0, "what it knows it need not ask for"


def test_the_image_is_the_same_on_both(measured: Round) -> None:
    taken = step(measured, "B takes the one-stage image out")
    assert taken.ran == 0
    assert taken.wire > 50e6
    assert measured.digests[0] == measured.digests[1]


def test_a_changed_file_runs_the_compile_chain_and_moves_little(measured: Round) -> None:
    changed = step(measured, "B changes a source file")
    assert changed.ran == 5, "ADD, configure, make, make install, and the COPY of the second image"
    assert measured.share(changed) < 0.05
    assert changed.blobs < 0.05 * measured.layers, "uncompressed, too"
    taken = step(measured, "A takes the changed image out")
    assert taken.ran == 0
    assert measured.share(taken) < 0.05


def test_a_new_runner_fetches_the_compiler_once(measured: Round) -> None:
    first = step(measured, "a third store, another file changed")
    assert first.ran == 5
    assert first.wire > 50e6, "the compiler's layer, which its steps need"
    then = step(measured, "the third store, one more file changed")
    assert then.ran == 5
    assert measured.share(then) < 0.05
