"""What a context brings along: symlinks, pipes, settings, escape sequences, numbers and patterns that mean harm (I5)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cache.errors import UsageError
from compiler.cli.options import Parser, Request, add_build_options, read_request
from compiler.cli.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

MANY = "9" * 5000
BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("[PASSWORD-OF-ROOT\n")
    return path


@pytest.mark.parametrize(
    ("command", "name"),
    [("build", "Dockerfile"), ("build", "dockerfile"), ("plan", ".dockerignore"), ("check", "Dockerfile"), ("check", ".dockerignore")],
)
def test_a_symlink_out_of_the_context_shows_nothing(program: Program, secret: Path, command: str, name: str) -> None:
    project = program.project("FROM scratch\nCOPY * /\n", {"a": ""})
    if name != ".dockerignore":
        (project / "Dockerfile").unlink()
    (project / name).symlink_to(secret)
    ran = program.call(command, project)
    assert "PASSWORD" not in ran.stdout + ran.stderr
    if command != "check" or name != ".dockerignore":
        assert "is a symlink that leads out of the context" in ran.failed(2).stderr


def test_a_symlink_within_the_context_and_one_that_was_named(program: Program, tmp_path: Path) -> None:
    project = program.project("", {"real/file": "FROM scratch\n"})
    (project / "Dockerfile").unlink()
    (project / "Dockerfile").symlink_to("real/file")
    program.build(project).ok()
    outside = tmp_path / "outside"
    outside.write_text("FROM scratch\n")
    (project / "Dockerfile").unlink()
    (project / "Dockerfile").symlink_to(outside)
    program.build(project, "-f", project / "Dockerfile").ok()


@pytest.mark.parametrize(
    ("command", "name"),
    [("build", "Dockerfile"), ("build", ".dockerignore"), ("plan", "buildgraph.toml"), ("check", "Dockerfile"), ("check", ".dockerignore")],
)
def test_a_pipe_is_no_file(program: Program, command: str, name: str) -> None:
    project = program.project("FROM scratch\nCOPY * /\n", {"a": ""})
    (project / name).unlink(missing_ok=True)
    os.mkfifo(project / name)
    ran = program.call(command, project, cwd=project)
    assert "Traceback" not in ran.stderr
    if command != "check" or name != ".dockerignore":
        assert f"{name} is not a regular file" in ran.failed(2).stderr


def test_a_dockerfile_that_the_shell_hands_over(program: Program) -> None:
    project = program.project("nonsense")
    for written in ("/dev/stdin", "/dev/fd/0", "-"):
        program.call("build", "-f", written, project, input=b"FROM scratch\n").ok()


# settings


def settings(program: Program, text: str, **options: object) -> tuple[Path, Path]:
    """A project with a buildgraph.toml; where it asks for the store to be."""
    asked = program.root / "asked"
    project = program.project("FROM scratch\n", {"buildgraph.toml": text.replace("ASKED", str(asked))})
    program.env.pop("BUILDGRAPH_STORE", None)
    program.env["XDG_DATA_HOME"] = str(program.root / "data")
    return project, asked


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_settings_of_another_user_are_ignored(program: Program) -> None:
    project, asked = settings(program, 'store = "ASKED"\n')
    os.chown(project / "buildgraph.toml", 12345, 12345)
    ran = program.call("cache", "du", "--store", program.store, cwd=project).ok()
    assert "WARNING: buildgraph.toml is ignored: it belongs to another user" not in ran.stderr  # nothing was asked
    program.env["BUILDGRAPH_STORE"] = str(program.store)
    assert "buildgraph.toml is ignored: it belongs to another user" in program.call("build", ".", cwd=project).ok().stderr
    assert not asked.exists()


def test_settings_that_everybody_may_write_are_ignored(program: Program) -> None:
    project, asked = settings(program, 'store = "ASKED"\njobs = 0\n')
    (project / "buildgraph.toml").chmod(0o666)
    program.env["BUILDGRAPH_STORE"] = str(program.store)
    assert "buildgraph.toml is ignored: everybody may write it" in program.call("build", ".", cwd=project).ok().stderr
    assert not asked.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("inside", [True, False])
def test_a_checkout_does_not_choose_the_store_of_another_user(program: Program, inside: bool) -> None:
    project, asked = settings(program, 'store = "ASKED"\n')
    context = project if inside else program.project("FROM scratch\n", name="other")
    code = (
        "import os, sys, tomllib\nfrom compiler.cli import settings\nos.chdir(sys.argv[1])\n"
        "os.setegid(12345)\nos.seteuid(12345)\nprint(settings.load(sys.argv[2]).store)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, project, context], env=program.env, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip() == str(asked)) != inside
    assert ("store in buildgraph.toml is ignored" in done.stderr) == inside


def test_own_settings_count(program: Program) -> None:
    project, asked = settings(program, 'store = "ASKED"\njobs = 3\n')
    assert program.call("build", ".", cwd=project).ok().stderr.count("WARNING") == 0
    assert asked.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store=" + "[" * 60_000, "nested too deeply"),
        ("jobs=-5", "jobs must be from 1"),
        ("jobs=0", "jobs must be from 1"),
        ("jobs=true", "jobs is not a number"),
        (f"jobs={MANY}", "buildgraph.toml: "),
        ('store="a\\u0000b"', "holds a NUL"),
        ('store=""', "store is empty"),
        ("store=1", "store is not a text"),
        ("x=1", "unknown key 'x'"),
        ("x", "buildgraph.toml: "),
        ("#" * 100_000, "larger than 64 KiB"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    (tmp_path / "buildgraph.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(message)):
        load(".")


# numbers and patterns


@pytest.mark.parametrize(
    ("dockerfile", "code", "message"),
    [
        (BASE + f"USER {MANY}\nRUN true\n", 3, "there is no user '999"),
        (BASE + f"COPY --chown={MANY} f /\n", 3, "there is no user '999"),
        (BASE + f"COPY --chown=0:{MANY} f /\n", 3, "there is no group '999"),
        (BASE + f"RUN echo x:x:{MANY}:0::/: >> /etc/passwd\nUSER x\nRUN true\n", 3, "'x' has an id beyond"),
        (BASE + f"COPY --from={MANY} /f /\n", 3, "there is no stage number 999"),
        (BASE + f"RUN --mount=type=bind,from={MANY},target=/x true\n", 3, "there is no stage number 999"),
        (BASE + "COPY x[ /\n", 3, "x["),
        (BASE + "COPY --parents x[/y /\n", 3, "x["),
        (BASE + "COPY --from=busybox x[a- /\n", 3, "x[a-"),
        (BASE + "COPY --exclude=x[ f /\n", 3, "--exclude: "),
        (BASE + "ADD --exclude=x[ f /\n", 3, "--exclude: "),
        (BASE + "COPY --exclude=! f /\n", 3, "--exclude: "),
    ],
)
def test_numbers_and_patterns_that_are_none(program: Program, dockerfile: str, code: int, message: str) -> None:
    failed = program.build(program.project(dockerfile, {"f": ""})).failed(code)
    assert message in failed.stderr
    assert re.search(r"Dockerfile:\d+:", failed.stderr)
    assert len(failed.stderr) < 4000


def request(directory: Path, *arguments: str) -> Request:
    (directory / "Dockerfile").write_text("FROM scratch\n")
    parser = Parser()
    add_build_options(parser)
    return read_request(parser.parse_args([str(directory), *arguments]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shm-size", MANY],
        ["--shm-size", "9" * 19 + "g"],
        ["--shm-size", "²"],
        ["--ulimit", f"nofile={MANY}"],
        ["--ulimit", "nofile=²"],
        ["--ulimit", "nofile=--1"],
        ["--jobs", MANY],
        ["--jobs", "-1"],
    ],
)
def test_options_that_are_no_numbers(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        request(tmp_path, *arguments)


@pytest.mark.parametrize(("size", "count"), [("64m", 64 << 20), ("64MB", 64 << 20), ("1g", 1 << 30), ("1048576", 1 << 20), ("2048k", 2 << 20)])
def test_sizes_as_docker_writes_them(tmp_path: Path, size: str, count: int) -> None:
    options = request(tmp_path, "--shm-size", size, "--ulimit", "nofile=1024:2048", "--ulimit", "core=-1").variants[0]
    assert (options.shm_size, options.ulimits) == (count, (("nofile", 1024, 2048), ("core", -1, -1)))


def test_a_plan_of_thousands_of_stages(program: Program) -> None:
    stages = [f"FROM s{number - 1} AS s{number}\nCOPY f /{number}\n" for number in range(1, 2000)]
    project = program.project("FROM scratch AS s0\n" + "".join(stages), {"f": ""})
    assert "0 cached, 1999 to run" in program.call("plan", project).ok().stdout.replace("1 to run, 1998 that depend", "1999 to run")


# the terminal


def test_no_escape_sequence_reaches_the_terminal(program: Program) -> None:
    tame = "\x1b]0;owned\x07\u202e\x9b31m"
    evil = f"{tame}\x1b[2J"  # a bracket would be a pattern in a file name
    projects = [
        (program.project(f"FROM scratch\nCOPY {evil}nofile /\n"), 3),
        (program.project(f"FROM scratch\nRUNN{evil} x\n", name="two"), 3),
        (program.project(f"FROM scratch\nCOPY f{tame} /f\n", {f"f{tame}": ""}, name="three"), 0),
        (program.project(f"FROM scratch\nLABEL a=${{{evil}}}\n", name="four"), 3),
    ]
    for project, code in projects:
        for command in (["plan"], ["check"], ["build", "--target", f"x{evil}"]):
            ran = program.call(*command, project)
            assert command != ["plan"] or ran.code == code
            for text in (ran.stdout, ran.stderr):
                assert not set(text) & set("\x1b\x07\u202e\x9b"), text


def test_a_working_directory_that_is_gone(program: Program) -> None:
    gone = program.root / "gone"
    gone.mkdir()
    project = program.project("FROM scratch\n")
    for context, code in ((".", 4), (str(project), 0)):
        command = ["/bin/sh", "-c", f'mkdir -p {gone}; cd {gone}; rmdir {gone}; exec "$@"', "sh", *program.command("build", context)]
        env = {**program.env, "PYTHONPATH": os.pathsep.join([os.path.abspath("."), os.path.abspath("proto")])}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == code, done.stderr
        assert ("working directory that is gone" in done.stderr) == (code != 0)
