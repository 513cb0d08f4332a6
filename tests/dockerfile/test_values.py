"""Ports, durations and signals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dockerfile.durations import parse_duration
from compiler.dockerfile.ports import normalise_ports
from compiler.dockerfile.signals import check_signal


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["80"], ["80/tcp"]),
        (["8080", "80/UDP", "80", "80/tcp"], ["80/tcp", "80/udp", "8080/tcp"]),
        (["9-11/sctp"], ["9/sctp", "10/sctp", "11/sctp"]),
        (["127.0.0.1:8080:80", "1:2"], ["2/tcp", "80/tcp"]),
        (["[::1]:8080:81", "127.0.0.1::82"], ["81/tcp", "82/tcp"]),
        (["1000-1001:80-81"], ["80/tcp", "81/tcp"]),
        ([], []),
    ],
)
def test_ports(words: list[str], expected: list[str]) -> None:
    assert normalise_ports(words) == expected


@pytest.mark.parametrize("word", ["", "x", "65536", "-1", "1-", "3-2", "80/http", "1-3:1-2", "x:80", "８0", "9" * 6000])
def test_no_ports(word: str) -> None:
    with pytest.raises(ValueError):
        normalise_ports([word])


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("5s", 5_000_000_000),
        ("1h2m3.5s", 3_723_500_000_000),
        ("1.5ms", 1_500_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("3µs2ns", 3_002),
        ("-1m", -60_000_000_000),
        ("0.3333333333333333333h", 1_200_000_000_000 - 1),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", ".s", "1x", "1s ", "1 s", "300000000h", "1" * 6000 + "s", "--1s", "1d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@settings(deadline=None)
@given(st.text(alphabet="0123456789.hmsnuµ+-", max_size=20))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        nanoseconds = parse_duration(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "a duration"
        assert abs(nanoseconds) < 2**63
    assert "duration" in message


def test_signals() -> None:
    for signal in ("SIGTERM", "term", "15", "SIGRTMIN+15", "RTMAX-14", "RTMIN", "sigint"):
        assert check_signal(signal) == signal
    for text in (
        "",
        "0",
        "65",
        "-1",
        "SIGFOO",
        "RTMIN+16",
        "RTMIN-1",
        "RTMAX+1",
        "TERM+1",
        "SIG SIGTERM",
        "9999999999",
    ):
        with pytest.raises(ValueError):
            check_signal(text)
