"""Progress: what people and programs read on stderr while a build runs."""

import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from cache.errors import UsageError
from cache.image_config import ImageConfig
from cache.platform import Platform
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.graph import ContextSource, ImageSource
from compiler.lower import Image, Lowering
from compiler.options import BuildOptions
from compiler.progress.events import (
    Announced,
    Ended,
    Event,
    Finished,
    NodeInfo,
    Printed,
    Reporter,
    Started,
    Task,
    Transfer,
    Waiting,
    Warned,
    node_infos,
)
from compiler.progress.live import LiveReporter
from compiler.progress.open import open_reporter
from compiler.progress.plain import PlainReporter
from compiler.progress.rawjson import RawJsonReporter

NODES = Announced(
    (
        NodeInfo("context", 1, "context", "", "context"),
        NodeInfo("build.1", 2, "[build 2/3] RUN make", "build", "run"),
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


def plain(*script: Event | float, turn_seconds: float = 0.0) -> str:
    """What the plain view writes; a number in the script lets that many seconds pass."""
    stream, clock = io.StringIO(), Clock()
    view = PlainReporter(stream, clock, turn_seconds)
    for item in script:
        if isinstance(item, float):
            clock.now += item
        else:
            view.report(item)
    view.close()
    return stream.getvalue()


# titles


class Bases:
    def image(self, name: str, platform: Platform) -> Image:
        return Image(ImageConfig.empty(platform), ImageSource(name, None, (), ""))

    def named_context(self, name: str, platform: Platform) -> Image | ContextSource | None:
        return None

    def main_context(self) -> ContextSource:
        return ContextSource("")

    def repository(self, url: object) -> ImageSource:
        raise AssertionError("no test here takes from git")


def titles(dockerfile: str) -> list[tuple[int, str]]:
    options = BuildOptions(Platform.here())
    graph = Lowering(parse_dockerfile(Source("Dockerfile", dockerfile)), options, Bases()).graph
    return [(info.number, info.title) for info in node_infos(graph)]


def test_titles_count_the_steps_of_each_stage_as_docker_does() -> None:
    assert titles(
        """
        FROM debian:12 AS build
        ENV A=1
        WORKDIR /src
        COPY . .
        RUN make \\
            all
        FROM build AS more
        RUN more
        FROM alpine
        COPY --from=more /src /src
        ADD https://example.com/x /x
        """
    ) == [
        (1, "image alpine"),
        (2, "image debian:12"),
        (3, "[build 2/4] WORKDIR /src"),
        (4, "context"),
        (5, "[build 3/4] COPY . ."),
        (6, "[build 4/4] RUN make             all"),
        (7, "[more 1/1] RUN more"),
        (8, "[stage-2 2/3] COPY --from=more /src /src"),
        (9, "http https://example.com/x"),
        (10, "[stage-2 3/3] ADD https://example.com/x /x"),
    ]


def test_a_lonely_stage_without_a_name_is_not_named() -> None:
    runs = "".join(f"RUN {number}\n" for number in range(10))
    shown = titles("FROM debian\n" + runs)
    assert shown[1] == (2, "[ 2/11] RUN 0")
    assert shown[-1] == (11, "[11/11] RUN 9")
    assert titles("FROM scratch\nCOPY a /\n")[-1] == (2, "[1/1] COPY a /")


def test_a_title_is_one_harmless_line_of_bounded_length() -> None:
    title = titles(f"FROM debian\nRUN printf '\x1b[31m' {'x' * 5000}\n")[-1][1]
    assert title.startswith("[2/2] RUN printf '' xxx")
    assert title.endswith("x…")
    assert len(title) == 400


# plain


def test_plain_groups_look_like_docker_s() -> None:
    assert plain(
        NODES,
        Started("context"),
        Transfer("context", 10, 4100),
        Transfer("context", 4100, 4100),
        Finished("context", "done", 0.04, None, ""),
        Finished("build.2", "cached", 0.0, 10, "made 2 h ago by ann@ci"),
        Finished("build.2", "cached", 0.0, 10, ""),
        Started("build.1"),
        0.1234,
        Printed("build.1", "cc -c main.c"),
        Printed("build.1", ""),
        Finished("build.1", "done", 0.2, 1536, "equal to an earlier result"),
        Task("exporting to image", "started", 0.0),
        Task("exporting to image", "done", 1.0),
        Ended(True, 3.21, "sha256:1", 8, 4, ""),
    ) == (
        "#1 context\n"
        "#1 transferred 4.1kB / 4.1kB\n"
        "#1 DONE 0.0s\n"
        "\n"
        "#3 [build 3/3] COPY . /src\n"
        "#3 CACHED (made 2 h ago by ann@ci)\n"
        "\n"
        "#3 [build 3/3] COPY . /src\n"
        "#3 CACHED\n"
        "\n"
        "#2 [build 2/3] RUN make\n"
        "#2 0.123 cc -c main.c\n"
        "#2 0.123 \n"
        "#2 DONE 0.2s (equal to an earlier result)\n"
        "\n"
        "#5 exporting to image\n"
        "#5 DONE 1.0s\n"
        "\n"
        "built in 3.2s: 4 ran, 8 cached\n"
    )


def test_plain_repeats_the_title_when_output_switches_back() -> None:
    assert plain(
        NODES,
        Started("build.1"),
        Started("test.1"),
        0.5,
        Printed("build.1", "one"),
        Waiting("test.1", "another build is making this"),
        Waiting("test.1", "another build is making this"),
        Warned("two\nlines"),
        Finished("build.1", "failed", 0.0, None, ""),
        Finished("test.1", "cancelled", 0.0, None, ""),
        Ended(False, 1.0, "", 0, 1, "the command ended with exit code 1"),
    ) == (
        "#2 [build 2/3] RUN make\n"
        "#2 ...\n"
        "\n"
        "#4 [test 2/2] RUN pytest\n"
        "#4 ...\n"
        "\n"
        "#2 [build 2/3] RUN make\n"
        "#2 0.500 one\n"
        "#2 ...\n"
        "\n"
        "#4 [test 2/2] RUN pytest\n"
        "#4 waiting: another build is making this\n"
        "#4 ...\n"
        "\n"
        "WARNING: two\n"
        "lines\n"
        "\n"
        "#2 [build 2/3] RUN make\n"
        "#2 ERROR after 0.5s\n"
        "\n"
        "#4 [test 2/2] RUN pytest\n"
        "#4 CANCELED\n"
        "\n"
        "failed after 1.0s: 1 ran, 0 cached\n"
    )


def test_plain_gives_each_step_a_turn_instead_of_mixing_lines() -> None:
    text = plain(
        NODES,
        Started("build.1"),
        Started("test.1"),
        Printed("build.1", "a"),
        Printed("test.1", "A"),
        Printed("build.1", "b"),
        Finished("test.1", "done", 0.1, None, ""),
        1.5,
        Printed("build.1", "c"),
        Finished("build.1", "done", 1.5, None, ""),
        turn_seconds=1.0,
    )
    shown = re.sub(r"(#\d) \d\.\d+ ", r"\1 ", text).split("\n")
    assert shown == [
        "#2 [build 2/3] RUN make",
        "#2 a",
        "#2 b",
        "#2 c",
        "#2 ...",
        "",
        "#4 [test 2/2] RUN pytest",
        "#4 A",
        "#4 DONE 0.1s",
        "",
        "#2 [build 2/3] RUN make",
        "#2 DONE 1.5s",
        "",
        "",
    ]


def test_plain_shows_held_lines_though_nothing_else_happens() -> None:
    stream = io.StringIO()
    began = time.monotonic()
    view = PlainReporter(stream, turn_seconds=0.5)
    view.report(Started("build.1"))
    view.report(Printed("test.1", "held"))
    assert "held" not in stream.getvalue() or time.monotonic() - began > 0.5
    deadline = time.monotonic() + 60
    while "held" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stream.getvalue().endswith("held\n")
    view.close()


def test_plain_does_not_hold_more_than_so_many_lines() -> None:
    stream = io.StringIO()
    view = PlainReporter(stream, Clock(), turn_seconds=60.0)
    view.report(Started("build.1"))
    for number in range(1002):
        view.report(Printed("test.1", str(number)))
    assert "#2 0.000 1001\n" in stream.getvalue()
    view.close()


def test_plain_throttles_transfers() -> None:
    moves = [item for done in range(1, 1001) for item in (0.01, Transfer("context", done, 1000))]
    shown = plain(NODES, *moves).count("transferred")
    assert shown == 5


def test_plain_tells_what_an_interruption_stopped() -> None:
    text = plain(NODES, Started("build.1"))
    assert text == "#2 [build 2/3] RUN make\n#2 CANCELED\n\n"


# any view


class ClosedPipe(io.StringIO):
    """A stderr whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def views(stream: io.StringIO) -> Iterator[Reporter]:
    yield PlainReporter(stream)
    yield RawJsonReporter(stream)
    yield LiveReporter(stream)
    yield open_reporter("quiet", stream)


def test_a_stream_that_is_gone_does_not_stop_the_build() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (ClosedPipe(), closed):
        for view in views(stream):
            for event in (NODES, Started("build.1"), Warned("x"), Ended(True, 1.0, "", 0, 0, "")):
                view.report(event)
            view.close()
            view.close()


def test_a_stream_of_another_encoding_gets_what_it_can_show() -> None:
    for open_view in (PlainReporter, LiveReporter):
        raw = io.BytesIO()
        view = open_view(io.TextIOWrapper(raw, encoding="ascii"))
        view.report(Finished("é", "cached", 0.0, None, ""))
        view.close()
        assert b"CACHED" in raw.getvalue()
        assert rb"\xe9" in raw.getvalue()


@pytest.mark.parametrize("mode", ["plain", "rawjson"])
def test_many_threads_may_report(mode: str) -> None:
    stream = io.StringIO()
    view = open_reporter(mode, stream)

    def step(name: str) -> None:
        view.report(Started(name))
        for number in range(200):
            view.report(Printed(name, f"{name}:{number}"))
        view.report(Finished(name, "done", 1.0, None, ""))

    threads = [threading.Thread(target=step, args=(f"step{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view.close()
    text = stream.getvalue()
    for number in range(8):
        # Each step's lines are whole, complete and in order.
        assert re.findall(rf"\bstep{number}:(\d+)\b", text) == [str(line) for line in range(200)]
    if mode == "rawjson":
        assert len([json.loads(line) for line in text.splitlines()]) == 8 * 202


def test_modes_are_checked() -> None:
    with pytest.raises(UsageError, match="no progress mode 'fancy'"):
        open_reporter("fancy", io.StringIO())
    with pytest.raises(UsageError, match="needs a terminal"):
        open_reporter("tty", io.StringIO())
    assert isinstance(open_reporter("auto", io.StringIO()), PlainReporter)
    stream = io.StringIO()
    view = open_reporter("quiet", stream)
    view.report(Ended(False, 1.0, "", 0, 0, "it failed"))
    assert stream.getvalue() == ""


def test_opening_a_view_does_not_import_rich() -> None:
    code = "import sys, compiler.progress.open, compiler.progress.live; print('rich' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
