"""Bad input: one readable message, the line, the right exit code, and nothing half done."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"

WRONG = {
    "unknown instruction": (BASE + "RUNN true\n", 3, ["unknown instruction RUNN, did you mean RUN?", "4 | RUNN true"]),
    "missing source": (BASE + "COPY nothere /x\n", 3, ["no 'nothere' to copy", "4 | COPY nothere /x", "see: https://docs.docker.com/reference/dockerfile/#copy"]),
    "unknown stage": (BASE + "COPY --from=UPPER/case /x /x\n", 3, ["4 | COPY --from=UPPER/case"]),
    "later stage": ("FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nFROM a\n", 3, ["b comes later", "2 | COPY"]),
    "itself": ("FROM scratch AS a\nCOPY --from=a /x /\n", 3, ["cycle", "2 | COPY --from=a"]),
    "stage number": (BASE + "COPY --from=7 /x /\n", 3, ["no stage number 7"]),
    "no stage": ("ARG A=1\n", 3, ["no FROM"]),
    "empty": ("# nothing\n", 3, ["no instructions"]),
    "blank base": ("ARG A\nFROM $A\n", 3, ["empty once its variables", "2 | FROM $A"]),
    "bad modifier": (BASE + "ENV A=${B^^}\n", 3, ["4 | ENV A=${B^^}"]),
    "failing command": (BASE + "RUN exit 9\n", 1, ["exit code 9", "4 | RUN exit 9"]),
    "unknown flag": (BASE + "COPY --form=x a b\n", 3, ["4 | COPY --form=x a b"]),
    "mount at root": (BASE + "RUN --mount=type=tmpfs,target=/ true\n", 3, ["4 | RUN"]),
    "device": (BASE + "RUN --device=gpu true\n", 3, ["--device is refused"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_dockerfiles(program: Program, case: str) -> None:
    dockerfile, code, texts = WRONG[case]
    failed = program.call("build", program.project(dockerfile), *program.base(), "-t", "never:1", "--iidfile", program.root / "iid").failed(code)
    for text in texts:
        assert text in failed.stderr
    assert failed.stderr.count("error:") == 1
    assert not (program.root / "iid").exists()
    assert "never" not in program.call("image", "ls").ok().stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["bild", "."], "no command 'bild', did you mean build?"),
        (["build"], "CONTEXT"),
        (["build", "/no/such/dir"], "is not a directory"),
        (["build", ".", "--no-such-option"], "--no-such-option"),
        (["build", ".", "--platform", "linux/nonsense/x/y"], "not a platform"),
        (["build", ".", "-t", "UPPER"], "UPPER"),
        (["build", ".", "-f", "/no/such/file"], "no file /no/such/file"),
        (["build", ".", "--build-context", "x"], "NAME=VALUE"),
        (["build", ".", "-o", "type=nonsense"], "nonsense"),
        (["build", ".", "--secret", "src=x"], "id"),
        (["image", "inspect", "nothere"], "no image nothere"),
    ],
)
def test_wrong_command_lines(program: Program, arguments: list[str], text: str) -> None:
    project = program.project("FROM scratch\n")
    failed = program.call(*arguments, cwd=project).failed(2)
    assert text in failed.stderr


@pytest.mark.parametrize(
    ("base", "context", "text", "hint"),
    [
        ("lay", "lay=oci-layout:///no/such", "/no/such is not an OCI layout: there is no such directory", "-o type=oci,tar=false"),
        ("lay", "lay=oci-layout://.", "there is no oci-layout in it", "-o type=oci,tar=false"),
        ("lay", "lay=/no/such", "the named context lay=/no/such is not a directory", "oci-layout://"),
        ("oci-layout:///x", "a=.", "invalid image name 'oci-layout:///x'", "--build-context NAME=oci-layout:///x"),
        ("UPPER", "a=.", "must be lower case", "write 'upper'"),
    ],
)
def test_a_base_that_is_none_says_what_one_is(program: Program, base: str, context: str, text: str, hint: str) -> None:
    project = program.project(f"FROM {base}\n")
    failed = program.call("build", ".", "--build-context", context, cwd=project)
    assert failed.code in (2, 3)
    assert text in failed.stderr
    assert hint in failed.stderr.partition("hint: ")[2]


def test_help_and_version(program: Program) -> None:
    assert "buildgraph COMMAND" in program.call().ok().stdout
    for command in ("build", "plan", "image", "cache", "doctor"):
        assert "usage" in program.call(command, "--help").ok().stdout
    assert program.call("--version").ok().stdout.startswith("buildgraph ")


def test_no_registry_there(program: Program) -> None:
    failed = program.build(program.project("FROM 127.0.0.1:9/none:1\n")).failed(5)
    assert "1 | FROM 127.0.0.1:9/none:1" in failed.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_as_an_ordinary_user(program: Program) -> None:
    project = program.project(BASE + "COPY a /a\n", {"a": "x"})
    (project / "a").chmod(0)
    assert "cannot read a in the context" in program.build(project).failed(4).stderr


def test_an_unreadable_store(program: Program) -> None:
    program.store.write_text("a file")
    failed = program.build(program.project("FROM scratch\n")).failed(4)
    assert "cannot open the store" in failed.stderr
    program.store.unlink()


def test_a_closed_output_is_no_traceback(program: Program) -> None:
    project = program.project(BASE + "RUN seq 1 2000\n")
    command = program.command("build", project, *program.base(), "--progress", "plain")
    with subprocess.Popen(command, env=program.env, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(timeout=60) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A filesystem of 12 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a filesystem")
    image, target = tmp_path / "disk", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(12 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    target.mkdir()
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    return target


@pytest.mark.parametrize("line", ["COPY big /big", "RUN dd if=/dev/urandom of=/big bs=1M count=30"])
def test_a_full_disk(program: Program, small_disk: Path, line: str) -> None:
    try:
        project = program.project(BASE + line + "\n", {"big": os.urandom(30 << 20) if "COPY" in line else ""})
        store = small_disk / "store"
        failed = program.build(project, "--store", store, "-t", "big:1")
        assert failed.code in (1, 4), failed.stderr
        assert "No space left" in failed.stderr or "space" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert "big" not in program.call("image", "--store", store, "ls").ok().stdout
        # With room again the same store works.
        (project / "Dockerfile").write_text(BASE + "RUN echo fine\n")
        assert program.build(project, "--store", store).ok().output("1.1") == ["fine"]
        assert not list((store / "runs").iterdir())
    finally:
        subprocess.run(["umount", small_disk], check=True)
