"""Policy comments through the program: retry, timeout, no-cache, ttl and secret-in-key."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.runtime import SEARCH_PATH

if TYPE_CHECKING:
    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"
COUNT = "--mount=type=cache,target=/count echo x >> /count/n; n=$(wc -l < /count/n)"
"""A RUN's beginning after which $n says how often it has run."""


@pytest.fixture(params=["crun", "runc"])
def each_runtime(request: pytest.FixtureRequest, program: Program) -> Program:
    if not any((Path(place) / request.param).exists() for place in SEARCH_PATH.split(":")):
        pytest.skip(f"{request.param} is not installed")
    if request.param == "runc" and os.geteuid() != 0:
        pytest.skip("runc wants cgroups, which ordinary users lack")
    program.env["BUILDGRAPH_RUNTIME"] = request.param
    return program


def sleeping(marker: str) -> list[str]:
    """Ids of live processes that have the marker in their command line."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ended = (directory / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if marker.encode() in (directory / "cmdline").read_bytes() and not ended and directory.name != str(os.getpid()):
                found.append(directory.name)
    return found


def cgroups() -> set[str]:
    """Of all builds on the machine; `os.walk`, as some go while it looks."""
    found = (directory for directory, _, _ in os.walk("/sys/fs/cgroup"))
    return {directory for directory in found if os.path.basename(directory).startswith("buildgraph-")}


# retry


def test_a_step_that_fails_twice_leaves_only_what_the_third_attempt_made(each_way: Program) -> None:
    step = f"RUN {COUNT}; echo attempt $n; echo $n > /made-$n; rm -f /etc/group; test $n -ge 3 && touch /end || exit 7\n"
    project = each_way.project(BASE + "# buildgraph: retry=3\n" + step)
    target = each_way.root / "out"
    built = each_way.build(project, "-o", f"type=local,dest={target}").ok()
    assert built.output("1.1") == [
        "attempt 1",
        "[attempt 1 of 4: the command ended with exit code 7; trying again in 1 s]",
        "attempt 2",
        "[attempt 2 of 4: the command ended with exit code 7; trying again in 2 s]",
        "attempt 3",
    ]
    assert sorted(path.name for path in target.glob("*")) == ["bin", "end", "etc", "made-3", "tmp"]
    assert sorted(path.name for path in (target / "etc").iterdir()) == ["passwd"]
    assert each_way.build(project).ok().executed == []


def test_a_step_that_never_works_fails_after_the_last_attempt(program: Program) -> None:
    project = program.project(BASE + f"# buildgraph: retry=1\nRUN {COUNT}; printf \"no end $n\"; exit $((n + 3))\n")
    failed = program.build(project).failed(1)
    assert failed.output("1.1") == [
        "no end 1",
        "[attempt 1 of 2: the command ended with exit code 4; trying again in 1 s]",
        "no end 2",
        "[attempt 2 of 2: the command ended with exit code 5]",
    ]
    assert "Dockerfile:5" in failed.stderr
    assert "  │ [attempt 2 of 2: the command ended with exit code 5]\n\nerror: " in failed.stderr
    assert program.call("log", "1.1", project).ok().stdout.splitlines() == failed.output("1.1")


@pytest.mark.alone
def test_the_time_of_a_step_is_that_of_the_attempt_that_worked(program: Program) -> None:
    project = program.project(BASE + f"# buildgraph: retry=2\nRUN {COUNT}; test $n -ge 3\n")
    program.build(project).ok()
    node = next(each for each in program.plan(project)["nodes"] if each["id"] == "1.1")
    assert node["took_seconds"] < 3, "the pauses alone are three seconds"
    assert node["expected_high"] < 3


def test_without_the_comment_nothing_is_tried_again(program: Program) -> None:
    project = program.project(BASE + f"RUN {COUNT}; echo $n; exit 7\n")
    assert program.build(project).failed(1).output("1.1") == ["1"]


def test_a_secret_that_is_missing_is_no_reason_to_try_again(program: Program) -> None:
    text = "# buildgraph: retry=5\nRUN --mount=type=secret,id=token,required=true true\n"
    started = time.monotonic()
    failed = program.build(program.project(BASE + text))
    assert failed.code != 0
    assert "the secret 'token' is required" in failed.stderr
    assert "attempt" not in failed.stderr
    assert time.monotonic() - started < 15


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pause_between_attempts_can_be_interrupted(program: Program, number: signal.Signals) -> None:
    # The pauses are 1, 2, 4, 8 and 10 s: the fourth leaves time.
    step = f"# buildgraph: retry=5\nRUN {COUNT}; echo ran $n; false\n"
    process = subprocess.Popen(
        program.command("build", program.project(BASE + step), *program.base(), "--progress", "plain"),
        env=program.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "attempt 4 of 6" in line:
            break
    started = time.monotonic()
    os.kill(process.pid, number)
    rest = process.stderr.read()
    assert process.wait(20) == 128 + number
    process.stderr.close()
    assert time.monotonic() - started < 7, "it did not sit out the pause of 8 s"
    assert "ran 5" not in rest
    assert "Traceback" not in rest


# timeout


@pytest.mark.parametrize("command", ["sleep {m}", "sleep {m} & sleep {m} & trap '' TERM INT HUP; sleep {m}; sleep {m}", "(setsid sleep {m} &) ; exec sleep {m}"])
def test_a_command_that_takes_too_long_is_killed(each_runtime: Program, command: str) -> None:
    """Whatever it ignores, and though background processes hold its output open."""
    marker = f"61{os.getpid()}"
    before = cgroups()
    step = f"# buildgraph: timeout=3s\nRUN echo before; touch /before; {command.format(m=marker)}\n"
    project = each_runtime.project(BASE + step)
    started = time.monotonic()
    failed = each_runtime.build(project).failed(1)
    assert 3 <= time.monotonic() - started < 40
    assert "the command ran longer than 3 s (timeout=3s)" in failed.stderr
    assert "Dockerfile:5" in failed.stderr
    assert failed.output("1.1") == ["before"]
    assert not sleeping(marker)
    deadline = time.monotonic() + 20
    while not cgroups() <= before:  # those of other tests' builds come and go
        assert time.monotonic() < deadline, cgroups() - before
        time.sleep(0.01)
    assert each_runtime.build(each_runtime.project(BASE + "RUN test ! -e /before\n")).ok().executed == ["1.1"]


def test_a_timeout_with_either_way_to_mount(each_way: Program) -> None:
    marker = f"62{os.getpid()}"
    failed = each_way.build(each_way.project(BASE + f"# buildgraph: timeout=500ms\nRUN sleep {marker} & sleep {marker}\n")).failed(1)
    assert "the command ran longer than 0.5 s (timeout=0.5s)" in failed.stderr
    assert not sleeping(marker)


def test_other_steps_go_on_while_one_is_late(program: Program) -> None:
    marker = f"63{os.getpid()}"
    text = (
        "FROM base AS late\n# buildgraph: retry=1 timeout=3s\n"
        f"RUN {COUNT}; test $n = 2 || sleep {marker}\n"
        "FROM base AS slow\nRUN sleep 5; echo done > /slow\n"
        "FROM base\nCOPY --from=late /bin/sh /x\nCOPY --from=slow /slow /slow\n"
    )
    project = program.project("FROM scratch AS base\nCOPY --from=busybox / /\n" + text)
    built = program.build(project, "--jobs", "4").ok()
    assert [line for line in built.output("late.1") if line] == [
        "[attempt 1 of 2: the command ran longer than 3 s (timeout=3s); trying again in 1 s]"
    ]
    assert "slow.1" in built.executed


def test_a_command_in_time_knows_nothing_of_it(program: Program) -> None:
    project = program.project(BASE + "# buildgraph: timeout=10m\nRUN echo quick > /q\n")
    assert program.build(project).ok().executed[-1] == "1.1"


def test_how_a_step_is_treated_is_no_part_of_it(program: Program) -> None:
    """Neither keys nor the image know it."""
    plain = BASE + "RUN echo a > /a\nWORKDIR /w\nCOPY f .\n"
    treated = BASE + (
        "# buildgraph: retry=2 timeout=1h\nRUN echo a > /a\n# buildgraph: ttl=365d\nWORKDIR /w\n#buildgraph: ttl=365d\nCOPY f .\n"
    )
    program.build(program.project(plain, {"f": "f"}), "-t", "plain:1").ok()
    assert program.build(program.project(treated, {"f": "f"}), "-t", "treated:1").ok().executed == []
    assert program.config("plain:1") == program.config("treated:1")


# mistakes


def test_a_slip_of_the_pen_is_shown_with_its_line(program: Program) -> None:
    failed = program.build(program.project(BASE + "# buildgraph: no-cahce\nRUN true\n")).failed(3)
    assert "Dockerfile:4:15: unknown policy no-cahce, did you mean no-cache?" in failed.stderr
    assert "4 | # buildgraph: no-cahce" in failed.stderr
    assert "hint: a policy comment takes no-cache, ttl=24h," in failed.stderr


def test_a_secret_in_the_key_that_the_step_cannot_see_is_a_mistake(program: Program) -> None:
    text = "# buildgraph: secret-in-key=tokn\nRUN --mount=type=secret,id=token true\n"
    failed = program.build(program.project(BASE + text)).failed(3)
    assert "secret-in-key=tokn: this RUN mounts no secret of that id, did you mean token?" in failed.stderr
    assert "Dockerfile:5" in failed.stderr


# no-cache and ttl


def test_no_cache_runs_its_step_again_and_nothing_behind_it(program: Program) -> None:
    text = "RUN echo 1 > /1\n# buildgraph: no-cache\nRUN echo 2 > /2\nRUN echo 3 > /3\n"
    project = program.project(BASE + text)
    assert program.build(project).ok().executed[-3:] == ["1.1", "1.2", "1.3"]
    assert program.build(project).ok().executed == ["1.2"], "it made the same, so what is behind it is not run"


@pytest.mark.parametrize("kind", ["run", "copy"])
def test_a_result_is_good_until_its_ttl(program: Program, kind: str) -> None:
    step = {"run": "RUN date +%s%N > /now", "copy": "COPY f /f"}[kind]
    project = program.project(BASE + f"# buildgraph: ttl=4s\n{step}\nRUN echo behind > /b\n", {"f": "f"})
    assert "1.1" in program.build(project).ok().executed
    made = time.monotonic()
    again = program.build(project).ok().executed
    assert again == [] or time.monotonic() - made > 4
    time.sleep(4.1)
    expected = {"run": ["1.1", "1.2"], "copy": ["1.1"]}[kind]
    assert program.build(project).ok().executed == expected


def test_a_longer_ttl_makes_an_old_result_good_again(program: Program) -> None:
    text = "# buildgraph: ttl={}\nRUN echo x > /x\n"
    program.build(program.project(BASE + text.format("1s"))).ok()
    time.sleep(1.1)
    assert program.build(program.project(BASE + text.format("1h"))).ok().executed == []
    assert program.build(program.project(BASE + text.format("1s"))).ok().executed == ["1.1"]


# secret-in-key

SECRET = "# buildgraph: secret-in-key=token\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size || true\n"


def given(program: Program, value: str) -> list[str]:
    path = program.root / "token"
    path.write_text(value)
    return ["--secret", f"id=token,src={path}"]


def test_a_secret_in_the_key_runs_the_step_when_it_changes(program: Program) -> None:
    project = program.project(BASE + SECRET)
    assert program.build(project, *given(program, "first-value")).ok().executed[-1] == "1.1"
    assert program.build(project, *given(program, "first-value")).ok().executed == []
    assert program.statuses(project, *given(program, "second-value"))["1.1"] == "miss"
    assert program.build(project, *given(program, "second-value")).ok().executed == ["1.1"]
    assert program.build(project).ok().executed == ["1.1"], "a build without it has another key"
    assert program.build(project, *given(program, "first-value")).ok().executed == [], "known from before"


def test_without_the_comment_a_secret_is_in_no_key(program: Program) -> None:
    project = program.project(BASE + SECRET.partition("\n")[2])
    program.build(project, *given(program, "first-value")).ok()
    assert program.build(project, *given(program, "second-value")).ok().executed == []


def test_neither_the_secret_nor_a_plain_hash_of_it_is_in_the_store(program: Program) -> None:
    """I4: whoever sees the store's records cannot try out values."""
    import hashlib

    from blake3 import blake3

    value = "the-value-to-look-for"
    program.build(program.project(BASE + SECRET), *given(program, value)).ok()
    data = value.encode()
    traces = [data]
    for digest in (blake3(data).digest(), *(hashlib.new(name, data).digest() for name in ("sha256", "sha1", "md5", "sha512"))):
        traces += [digest, digest.hex().encode()]
    files = [path for path in program.store.rglob("*") if path.is_file()]
    assert any(path.name == "data.mdb" for path in files)
    assert not [path for path in files for trace in traces if trace in path.read_bytes()]
    assert (program.store / "secret-key").stat().st_mode & 0o777 == 0o600
