"""moon with our server as its cache, uncompressed and by zstd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from moon import LARGE, Moon, hits

if TYPE_CHECKING:
    from conftest import Serve, Team

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_moon_finds_what_it_built(moon: Moon, serve: Serve, compression: str) -> None:
    serving = serve("--anonymous", "write")
    remote = {"host": f"grpc://{serving.address}", "cache": {"compression": compression}}
    workspace = moon.workspace(remote)
    assert hits(moon.run(workspace)) == 0
    packed = (workspace / "app/packed.txt").read_text()
    moon.clean(workspace)
    text = moon.run(workspace)
    assert hits(text) == 2, text
    assert (workspace / "app/packed.txt").read_text() == packed
    assert (workspace / "app/dist/large").stat().st_size == LARGE
    # Its own name of an instance, if it is told none.
    asked = 'buildgraph_action_results_total{namespace="moon-outputs",outcome="%s"}'
    assert (serving.metric(asked % "miss"), serving.metric(asked % "hit")) == (2, 2)
    sent = serving.metric('buildgraph_blob_bytes_total{direction="out",namespace="moon-outputs"}')
    assert (sent >= LARGE) is (compression == "none"), f"{sent} bytes went out"
    assert not serving.events("refused")


def test_moon_by_tls_with_a_token(moon: Moon, team: Team) -> None:
    remote = {
        "host": f"grpcs://{team.address}", "auth": {"token": "BUILDGRAPH_TOKEN"}, "tls": {"cert": str(team.ca), "domain": "localhost"},
        "cache": {"compression": "zstd", "instanceName": "main"},
    }  # fmt: skip
    workspace = moon.workspace(remote)
    moon.env["BUILDGRAPH_TOKEN"] = team.writer
    assert hits(moon.run(workspace)) == 0
    assert {line["who"] for line in team.serving.events("published")} == {"ci"}
    moon.clean(workspace)
    moon.env["BUILDGRAPH_TOKEN"] = team.reader
    text = moon.run(workspace)
    assert hits(text) == 2, text
