"""`buildgraph log`: what a step printed, by its place and by its key, also when it was cached, failed or is gone."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from cache.build_record import all_builds
from cache.lmdb_store import LmdbStore

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program, Ran

    from cache.build_record import BuildRecord

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base AS app\n"
STEPS = BASE + "RUN echo one; echo two >&2\nRUN true\nRUN echo three\n"
WHEN = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"


def last(program: Program) -> BuildRecord:
    store = LmdbStore(str(program.store))
    try:
        return all_builds(store)[-1]
    finally:
        store.close()


def key_of(program: Program, node: str, kind: str = "recipe") -> str:
    found = last(program).node(node)
    assert found is not None
    return found.recipe if kind == "recipe" else found.content


def test_a_step_that_ran_and_one_that_was_cached(program: Program) -> None:
    context = program.project(STEPS)
    program.build(context).ok()
    ran = program.call("log", "app.1", context).ok()
    assert ran.stdout == "one\ntwo\n"
    assert re.fullmatch(r"app\.1 RUN echo one; echo two >&2: ran [0-9]{2}:[0-9]{2}:[0-9]{2}, took .+ s\n", ran.stderr)
    program.build(context).ok()
    cached = program.call("log", "app.1", context).ok()
    assert cached.stdout == "one\ntwo\n"
    assert re.fullmatch(rf"app\.1 RUN echo one.*: CACHED, log from {WHEN} by .+@.+, took .+ s\n", cached.stderr)


def test_a_step_that_another_build_made(program: Program) -> None:
    program.build(program.project(STEPS)).ok()
    other = program.project("# the same\n" + STEPS, name="other")
    program.build(other).ok()
    shown = program.call("log", "app.3", other).ok()
    assert shown.stdout == "three\n"
    assert "CACHED, log from" in shown.stderr


def test_a_step_that_printed_nothing_says_so(program: Program) -> None:
    context = program.project(STEPS)
    program.build(context).ok()
    silent = program.call("log", "app.2", context).ok()
    assert silent.stdout == ""
    assert silent.stderr.endswith("\nit printed nothing\n")


def test_a_step_that_failed(program: Program) -> None:
    context = program.project(BASE + "RUN echo kept\nRUN seq 1 1000; exit 3\nRUN true\n")
    program.build(context).failed(1)
    failed = program.call("log", "app.2", context).ok()
    assert failed.stdout == "".join(f"{number}\n" for number in range(1, 1001)), "all of it, not only the end"
    assert "RUN seq 1 1000; exit 3: failed " in failed.stderr
    by_key = program.call("log", key_of(program, "app.2", "content")[:10], context).ok()
    assert by_key.stdout == failed.stdout
    unreached = program.call("log", "app.3", context).failed(2)
    assert "no step 'app.3' in the last build, did you mean app." in unreached.stderr


def test_by_either_key_from_anywhere(program: Program, tmp_path: Path) -> None:
    program.build(program.project(STEPS)).ok()
    for kind in ("recipe", "content"):
        key = key_of(program, "app.1", kind)
        for text in (key, key[:6], key[:9].upper()):
            shown = program.call("log", text, cwd=tmp_path).ok()
            assert shown.stdout == "one\ntwo\n"
            assert "app.1 RUN echo one" in shown.stderr
    digits = program.call("log", "12345678", program.root / "project").failed(2)
    assert "no step with this name or line, and none with a key that begins with 12345678" in digits.stderr
    few = program.call("log", "12345", program.root / "project").failed(2)
    assert "there is no line 12345" in few.stderr
    assert "of a key, 6 digits or more are needed" in few.stderr
    unknown = program.call("log", "0123456789abcdef", cwd=tmp_path).failed(2)
    assert "0123456789abcdef" in unknown.stderr
    short = program.call("log", key_of(program, "app.1")[:5], cwd=tmp_path).failed(2)
    assert "no build of . is remembered" in short.stderr, "five digits are no key"
    assert "6 digits or more of a key" in short.stderr


LINES = """ARG V=1
# said
FROM scratch AS base
COPY --from=busybox / /
FROM base AS app
ENV TOKEN=hunter2
RUN echo one \\
  two
RUN <<E
echo three
E
FROM base AS other
RUN false
FROM app
RUN echo last
"""


@pytest.mark.parametrize("command", ["log", "why"])
def test_a_step_by_its_line_and_what_stands_where_none_is(program: Program, command: str) -> None:
    context = program.project(LINES)
    program.build(context).ok()

    def asked(line: str) -> Ran:
        return program.call(command, line, context, *(program.base() if command == "why" else ()))

    for line, node in (("7", "app.2"), ("8", "app.2"), (":10", "app.3"), ("15", "3.1")):
        found = asked(line).ok()
        assert (found.stderr + found.stdout).startswith(node)
    for line, words in (
        ("1", "line 1 of the Dockerfile holds ARG, which is no step"),
        ("2", "line 2 of the Dockerfile holds no instruction"),
        ("6", "line 6 of the Dockerfile holds ENV, which is no step\nhint: near it: base.1 (COPY, line 4) and app.2 (RUN, line 7)"),
        ("99", "there is no line 99: the Dockerfile has 15"),
    ):
        refused = asked(line).failed(2)
        assert words in refused.stderr
        assert "hunter2" not in refused.stderr
    assert "other.1" in asked("13").failed(2).stderr, "a stage that is not built"
    by_number = asked("3").ok()
    assert (by_number.stderr + by_number.stdout).startswith("3.1"), "a stage by its number: its line holds no step"


def test_a_beginning_of_several_keys_lists_them(program: Program) -> None:
    program.build(program.project(STEPS)).ok()
    key = key_of(program, "app.1", "content")
    twin = key[:20] + ("0" if key[20] != "0" else "1") + key[21:]
    store = LmdbStore(str(program.store))
    record = store.get("results", key)
    assert record is not None
    from cache.store import Batch

    store.commit(Batch(records=(("results", twin, record),)))
    store.close()
    several = program.call("log", key[:8]).failed(2)
    assert "beginning of several keys" in several.stderr
    assert several.stderr.count(key[:16]) == 2
    assert program.call("log", key[:21]).ok().stdout == "one\ntwo\n"


def test_the_list_of_a_build(program: Program) -> None:
    context = program.project(BASE + "RUN echo 12345\nRUN echo x; exit 1\n")
    program.build(context).failed(1)
    program.build(context).failed(1)
    for arguments in ((context,), ("--list", context), ("--list", "app.1", context)):
        table = program.call("log", *arguments).ok().stdout
        rows = {line.split()[0]: line.split() for line in table.splitlines()[1:]}
        assert rows["base.1"][1:2] == ["cached"]
        assert rows["app.1"][1] == "cached"
        assert "6B" in rows["app.1"]
        assert rows["app.2"][1] == "failed"
        assert "2B" in rows["app.2"]
        assert str(context) in table.splitlines()[0]
    here = program.call("log", cwd=context).ok()
    assert "app.2" in here.stdout, "no context is the working directory"


def test_each_dockerfile_and_target_has_its_own_last_build(program: Program) -> None:
    context = program.project(STEPS + "FROM app AS more\nRUN echo four\n", {"Other": BASE + "RUN echo other\n"})
    program.build(context).ok()
    program.build(context, "--target", "app", "--no-cache-filter", "app").ok()
    program.build(context, "-f", context / "Other").ok()
    assert program.call("log", "app.1", context, "-f", context / "Other").ok().stdout == "other\n"
    assert "more.1" not in program.call("log", context).ok().stdout, "the last one built less"
    assert program.call("log", "more.1", context, "--target", "more").ok().stdout == "four\n"
    nothing = program.call("log", "app.1", context, "--target", "base").failed(2)
    assert "with target base is remembered" in nothing.stderr
    never = program.call("log", "app.1", program.project(STEPS, name="never")).failed(2)
    assert "is remembered" in never.stderr


def test_a_log_that_was_removed(program: Program) -> None:
    context = program.project(BASE + "RUN seq 1 20000\n")
    program.build(context).ok()
    log = last(program).nodes[-1].log
    assert log is not None
    (program.store / "blobs" / log.hash[:2] / log.hash[2:]).unlink()
    for arguments in (("app.1", context), (key_of(program, "app.1")[:8],)):
        gone = program.call("log", *arguments).failed(4)
        assert "was removed from the store" in gone.stderr
        assert gone.stdout == ""


def test_bytes_come_as_they_are_where_no_terminal_is(program: Program) -> None:
    """Also a log that is longer than what is read at once, and whose last line has no end."""
    context = program.project(BASE + "RUN printf '\\377\\000\\033]0;title\\007\\033[31mred\\r\\n'; seq 1 400000; printf end\n")
    program.build(context).ok()
    done = subprocess.run(program.command("log", "app.1", context), env=program.env, capture_output=True, check=True)
    numbers = b"".join(b"%d\n" % number for number in range(1, 400_001))
    assert done.stdout == b"\xff\x00\x1b]0;title\x07\x1b[31mred\r\n" + numbers + b"end"


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal_only_colours_act(program: Program, colour: bool) -> None:
    context = program.project(
        BASE + "RUN printf '\\033]0;title\\007\\033[1;31mred\\033[2J line\\nold\\r\\033[32mnew\\nlast'\n"
    )
    program.build(context).ok()
    master, slave = pty.openpty()
    env = {**program.env, "TERM": "xterm", **({} if colour else {"NO_COLOR": "1"})}
    process = subprocess.Popen(
        program.command("log", "app.1", context), env=env, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL
    )
    os.close(slave)
    data = b""
    try:
        while piece := os.read(master, 4096):
            data += piece
    except OSError:
        pass  # the other end is closed
    os.close(master)
    assert process.wait(timeout=20) == 0
    if colour:
        assert data == b"\x1b[1;31mred line\r\n\x1b[32mnew\r\nlast\r\n\x1b[0m"
    else:
        assert data == b"red line\r\nnew\r\nlast\r\n"


def test_a_reader_that_goes_away_is_no_traceback(program: Program) -> None:
    context = program.project(BASE + "RUN seq 1 400000\n")
    program.build(context).ok()
    process = subprocess.Popen(
        program.command("log", "app.1", context), env=program.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=20) == 1
