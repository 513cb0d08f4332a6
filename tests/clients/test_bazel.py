"""Bazel with our server as its cache: it publishes, finds, and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from authority import Authority
from bazel import ACTIONS, LARGE
from serving import make_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bazel import Bazel
    from conftest import Serve

pytestmark = pytest.mark.slow
SCOPES = {"ci": "read,write", "dev": "read"}


@pytest.mark.parametrize("version", ["2.1", "4.2"])
def test_bazel_finds_what_it_built(bazel_of: Callable[[str], Bazel], serve: Serve, tmp_path: Path, version: str) -> None:
    bazel = bazel_of(version)
    serving = serve("--anonymous", "write")
    remote = (f"--remote_cache=grpc://{serving.address}", "--remote_instance_name=bazel/main")
    workspace = bazel.workspace(tmp_path / "first")
    built = bazel.build(workspace, *remote).ok()
    assert (built.ran, built.hits) == (ACTIONS, 0), built.text
    output = (workspace / "bazel-bin/end.txt").read_text()
    assert len(serving.events("published")) == ACTIONS
    bazel.clean(workspace)
    again = bazel.build(workspace, *remote).ok()
    assert (again.ran, again.hits) == (0, ACTIONS), again.text
    assert (workspace / "bazel-bin/end.txt").read_text() == output
    asked = 'buildgraph_action_results_total{namespace="bazel/main",outcome="%s"}'
    assert (serving.metric(asked % "miss"), serving.metric(asked % "hit")) == (ACTIONS, ACTIONS)
    assert serving.metric('buildgraph_blob_bytes_total{direction="in",namespace="bazel/main"}') >= LARGE
    assert serving.metric('buildgraph_blob_bytes_total{direction="out",namespace="bazel/main"}') >= LARGE
    # In another checkout, where one file is another: what depends on it is built, all else is found.
    other = bazel.workspace(tmp_path / "second", "changed\n")
    changed = bazel.build(other, *remote).ok()
    assert (changed.ran, changed.hits) == (2, ACTIONS - 2), changed.text
    assert not serving.events("refused")


def test_bazel_with_a_token(bazel_of: Callable[[str], Bazel], serve: Serve, tmp_path: Path) -> None:
    """2.1 cannot: it sends no header with its first question."""
    bazel = bazel_of("4.2")
    tokens = {name: make_token(tmp_path / "served", "--name", name, "--scope", scope, "--namespace", "main") for name, scope in SCOPES.items()}
    headers = {name: f"--remote_header=authorization=Bearer {token}" for name, token in tokens.items()}
    serving = serve()
    remote = (f"--remote_cache=grpc://{serving.address}", "--remote_instance_name=main")
    workspace = bazel.workspace(tmp_path / "first")
    nobody = bazel.build(workspace, *remote)
    assert nobody.code != 0
    assert "this server wants a token" in nobody.text
    assert bazel.build(workspace, *remote, headers["ci"]).ok().ran == ACTIONS
    assert {line["who"] for line in serving.events("published")} == {"ci"}
    # Whoever may only read has to say so: Bazel does not begin otherwise.
    workspace = bazel.workspace(tmp_path / "second")
    found = bazel.build(workspace, *remote, headers["dev"], "--noremote_upload_local_results").ok()
    assert (found.ran, found.hits) == (0, ACTIONS), found.text
    log = serving.log.read_text()
    assert not [name for name, token in tokens.items() if token in log]


def test_bazel_by_tls(bazel_of: Callable[[str], Bazel], serve: Serve, tmp_path: Path) -> None:
    """Debian's 4.2 cannot: it was built without."""
    bazel = bazel_of("2.1")
    authority = Authority(tmp_path)
    cert, key = authority.issue("server", "IP:127.0.0.1")
    serving = serve("--anonymous", "write", "--tls-cert", cert, "--tls-key", key)
    remote = (f"--remote_cache=grpcs://{serving.address}", f"--tls_certificate={authority.cert}")
    workspace = bazel.workspace(tmp_path / "first")
    assert bazel.build(workspace, *remote).ok().ran == ACTIONS
    bazel.clean(workspace)
    found = bazel.build(workspace, *remote).ok()
    assert (found.ran, found.hits) == (0, ACTIONS), found.text
