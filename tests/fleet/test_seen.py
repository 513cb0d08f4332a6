"""What people see of a fleet: the trace of a build on it, and the server's page while it goes on and afterwards."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "pages"))
sys.path.insert(0, str(Path(__file__).parent.parent / "trace"))

from cluster import BASE, Cluster, places
from serving import Client, make_token
from surfing import get
from trace_schema import check, row, steps

if TYPE_CHECKING:

    from program import Ran

pytestmark = pytest.mark.slow


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def strangers(cluster: Cluster) -> dict[str, str]:
    """Tokens of one who reads another namespace, and of one who reads none."""
    store = cluster.root / "served"
    made = {
        "elsewhere": make_token(store, "--name", "elsewhere", "--grant", "read,write:other"),
        "blind": make_token(store, "--name", "blind", "--grant", "write:other"),
    }
    client = Client(cluster.server.address, made["elsewhere"])
    client.put(b"x", "other")
    client.close()
    return made


def test_a_build_on_two_workers_is_traced_and_shown_live_and_afterwards(cluster: Cluster, tmp_path: Path) -> None:
    cluster.join("w1", "w2", slots=1)
    client = cluster.client()
    stages = "".join(f"{BASE} AS s{number}\nRUN sleep {12 + number}; echo {number} > /{number}\n".removeprefix("FROM scratch AS base\nCOPY --from=busybox / /\n") for number in range(3))
    project = client.project(
        "FROM scratch AS base\nCOPY --from=busybox / /\n" + stages + "FROM base\n" + "".join(f"COPY --from=s{number} /{number} /\n" for number in range(3)) + "RUN cat /0 /1 /2\n"
        "COPY --from=busybox / /last\n"  # so that there is something to publish when all is made
    )
    trace = tmp_path / "trace.json"
    tokens = strangers(cluster)
    ran: list[Ran] = []
    building = threading.Thread(target=lambda: ran.append(cluster.build(client, project, "--trace", trace)))
    building.start()
    try:
        cluster.wait(lambda: len(cluster.state()["running"]) == 2 and bool(cluster.state()["queued"]))
        page = get(cluster.server, "/", cluster.token)[2]
        others = {name: get(cluster.server, "/", token)[2] for name, token in tokens.items()}
    finally:
        building.join(110)
    (done,) = ran
    done.ok()
    assert "2 workers, 2 of 2 slots busy, 1 action waits" in words(page)
    assert "What waits" in words(page)
    assert "project" in words(page)
    assert str(client.root) not in page, "where a machine has it is nobody's business"
    assert page.count('class="rows-picture"') == 1
    for worker in ("w1", "w2"):
        assert f">{worker}</text>" in page
    assert "2 workers, 2 of 2 slots busy, 1 action waits" in words(others["elsewhere"])
    assert "sleep" not in others["elsewhere"], "what is done there only those know who may read there"
    assert "rows-picture" not in others["elsewhere"]
    assert "No workers" in words(others["blind"])

    found = check(trace.read_bytes())
    on = places(done)
    assert set(on.values()) == {"w1", "w2"}
    for name in ("s0.1", "s1.1", "s2.1"):
        (bar,) = steps(found)[name]
        assert row(found, bar) == on[name]
        assert bar["dur"] > 12_000_000
    assert max(steps(found)[name][0]["args"]["waited_seconds"] for name in on) > 1, "the third waited for a slot"
    assert row(found, steps(found)["4.1"][0]).startswith("here")
    assert "publishing" in {event.get("cat") for event in found["traceEvents"]}

    paths: list[str] = []
    # A page is made once in some seconds.
    cluster.wait(lambda: bool(paths) or paths.extend(re.findall(r'href="(/builds/[^"]+)"', get(cluster.server, "/", cluster.token)[2])) or bool(paths))
    path = paths[0]
    page = get(cluster.server, path, cluster.token)[2]
    for name in ("w1", "w2", "here: "):
        assert re.search(rf'<text class="row"[^>]*>{name}', page), name
    assert re.search(r"Critical path: .*4\.4", page)
    assert f"on {on['s2.1']}</small>" in page


def test_the_trace_of_a_step_that_fails_on_a_worker_says_where(cluster: Cluster, tmp_path: Path) -> None:
    cluster.join("w1", slots=1)
    client = cluster.client()
    trace = tmp_path / "trace.json"
    cluster.build(client, client.project(f"{BASE}\nRUN sleep 0.2; exit 3\n"), "--trace", trace).failed(1)
    found = check(trace.read_bytes())
    (bar,) = steps(found)["1.1"]
    assert (row(found, bar), bar["args"]["status"]) == ("w1", "failed")
