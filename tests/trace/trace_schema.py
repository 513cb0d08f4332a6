"""What a viewer expects of a trace: the Trace Event Format, as far as it is used."""

from __future__ import annotations

import json
from typing import Any

FIELDS = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": {"ph", "pid", "tid", "ts", "dur", "name", "cat", "args"},
    "s": {"ph", "pid", "tid", "ts", "name", "cat", "id"},
    "f": {"ph", "pid", "tid", "ts", "name", "cat", "id", "bp"},
}
OF_A_NODE = {"id", "instruction", "key", "reason", "why", "note", "status", "worker", "waited_seconds", "size", "critical"}


def check(data: bytes) -> dict[str, Any]:
    """The document, if a viewer understands all of it."""

    def no_numbers(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads(data.decode(), parse_constant=no_numbers)
    assert set(found) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert found["displayTimeUnit"] in ("ms", "ns")
    rows: dict[int, str] = {}
    for event in found["traceEvents"]:
        assert set(event) == FIELDS[event["ph"]], event
        assert event["pid"] == 1
        for name in {"ts", "dur", "tid", "sort_index"} & event.keys():
            assert type(event[name]) is int, event
            assert event[name] >= 0, event
        if event["ph"] == "M" and event["name"] == "thread_name":
            assert event["tid"] not in rows
            rows[event["tid"]] = event["args"]["name"]
    assert len(set(rows.values())) == len(rows), "each row is called otherwise"
    for event in bars(found):
        assert event["tid"] in rows
        if "node" in event["cat"].split(","):
            assert event["args"].keys() == OF_A_NODE
    for tid in rows:
        last = 0
        for event in sorted((each for each in bars(found) if each["tid"] == tid), key=lambda each: (each["ts"], each["dur"])):
            assert event["ts"] >= last, f"{event} overlaps what stands before it"
            last = event["ts"] + event["dur"]
    _check_arrows(found)
    return found


def _check_arrows(found: dict[str, Any]) -> None:
    for start in (each for each in found["traceEvents"] if each["ph"] == "s"):
        (end,) = [each for each in found["traceEvents"] if each["ph"] == "f" and each["id"] == start["id"]]
        assert start["ts"] <= end["ts"]
        for arrow in (start, end):
            inside = [
                each for each in bars(found)
                if each["tid"] == arrow["tid"] and each["ts"] <= arrow["ts"] < each["ts"] + each["dur"]
            ]  # fmt: skip
            assert [each["args"].get("critical") for each in inside] == [True], "it joins bars of the critical path"


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in found["traceEvents"] if event["ph"] == "X"]


def steps(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Bars of the nodes by their ids."""
    named: dict[str, list[dict[str, Any]]] = {}
    for bar in bars(found):
        if "id" in bar["args"]:
            named.setdefault(bar["args"]["id"], []).append(bar)
    return named


def row(found: dict[str, Any], bar: dict[str, Any]) -> str:
    """What the row of a bar is called."""
    (name,) = [
        event["args"]["name"] for event in found["traceEvents"]
        if event["ph"] == "M" and event["name"] == "thread_name" and event["tid"] == bar["tid"]
    ]  # fmt: skip
    return str(name)
