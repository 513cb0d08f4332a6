"""Progress for programs: lines of JSON that stay as docs/progress.md describes them."""

import io
import json

from compiler.progress.events import (
    Announced,
    Ended,
    Event,
    Finished,
    NodeInfo,
    Placed,
    Printed,
    Started,
    Task,
    Transfer,
    Waiting,
    Warned,
)
from compiler.progress.rawjson import RawJsonReporter

NODES = Announced(
    (
        NodeInfo("context", 1, "context", "", "context"),
        NodeInfo("build.1", 2, "[build 2/3] RUN make", "build", "run", ("context",)),
        NodeInfo("build.2", 3, "[build 3/3] COPY . /src", "build", "copy"),
        NodeInfo("test.1", 4, "[test 2/2] RUN pytest", "test", "run"),
    )
)


class Clock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rawjson_is_what_the_documentation_says() -> None:
    stream = io.StringIO()
    view = RawJsonReporter(stream, lambda: 1767225600.25)
    events: list[Event] = [
        Announced(NODES.nodes[1:2]),
        Started("build.1", "a changed", "files-changed", "ab"),
        Placed("build.1", "w1", "w1"),
        Printed("build.1", "\x1b[1m é \ud800"),
        Waiting("build.1", "why"),
        Transfer("build.1", 5, None),
        Finished("build.1", "done", 0.2, 1536, "", "", "ab", "w1"),
        Task("exporting", "done", 1 / 3),
        Warned("mind"),
        Ended(True, 1.0, "sha256:1", 8, 4, ""),
    ]
    for event in events:
        view.report(event)
    view.close()
    lines = stream.getvalue().splitlines()
    head = {"version": 1, "time": 1767225600.25}
    node = {"id": "build.1", "number": 2, "title": "[build 2/3] RUN make", "stage": "build", "kind": "run", "inputs": ["context"]}
    assert [json.loads(line) for line in lines] == [
        {**head, "event": "announced", "nodes": [node]},
        {**head, "event": "started", "id": "build.1", "why": "a changed", "reason": "files-changed", "key": "ab"},
        {**head, "event": "placed", "id": "build.1", "where": "w1", "worker": "w1"},
        {**head, "event": "printed", "id": "build.1", "line": "\x1b[1m é \ufffd"},
        {**head, "event": "waiting", "id": "build.1", "reason": "why"},
        {**head, "event": "transfer", "id": "build.1", "done": 5, "total": None},
        {
            **head, "event": "finished", "id": "build.1", "status": "done", "seconds": 0.2, "size": 1536, "note": "",
            "reason": "", "key": "ab", "worker": "w1",
        },
        {**head, "event": "task", "name": "exporting", "status": "done", "seconds": 0.333333},
        {**head, "event": "warned", "text": "mind"},
        {
            **head,
            "event": "ended",
            "ok": True,
            "seconds": 1.0,
            "digest": "sha256:1",
            "hits": 8,
            "ran": 4,
            "message": "",
        },
    ]
    assert stream.getvalue().isascii()


def test_rawjson_throttles_transfers_but_tells_their_end() -> None:
    stream, clock = io.StringIO(), Clock()
    view = RawJsonReporter(stream, clock)
    for done in range(1, 101):
        clock.now += 0.001
        view.report(Transfer("context", done, 100))
    assert [json.loads(line)["done"] for line in stream.getvalue().splitlines()] == [1, 100]
