"""`buildgraph check`, `--check`, `--call` and what a build says of its Dockerfile."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from program import Program

BAD = "FROM scratch AS base\nWORKDIR app\nFROM base\nMAINTAINER me\n"
CLEAN = "FROM scratch\nWORKDIR /app\n"


@pytest.fixture(autouse=True)
def _no_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUILDKIT_DOCKERFILE_CHECK", raising=False)


def rules(program: Program, dockerfile: str, *arguments: str) -> list[tuple[str, int]]:
    """(rule, line) of every finding."""
    ran = program.call("check", program.project(dockerfile), "--format", "json", *arguments)
    warnings = json.loads(ran.stdout)["warnings"]
    assert ran.code == (1 if warnings else 0)
    return [(each["ruleName"], each["location"]["ranges"][0]["start"]["line"]) for each in warnings]


# text, JSON, SARIF


def test_text_shows_the_line_and_what_to_write_instead(program: Program) -> None:
    ran = program.call("check", program.project(BAD), cwd=program.root)
    assert ran.code == 1
    assert ran.stdout == (
        "WARNING: WorkdirRelativePath - https://docs.docker.com/reference/build-checks/workdir-relative-path/\n"
        f"{program.root}/project/Dockerfile:2:1: "
        'Relative workdir "app" can have unexpected results if the base image changes\n'
        "   2 | WORKDIR app\n"
        "     | ^^^^^^^^^^^\n"
        "     = instead: WORKDIR /app\n"
        "\n"
        "WARNING: MaintainerDeprecated - https://docs.docker.com/reference/build-checks/maintainer-deprecated/\n"
        f"{program.root}/project/Dockerfile:4:1: Maintainer instruction is deprecated in favor of using label\n"
        "   4 | MAINTAINER me\n"
        "     | ^^^^^^^^^^^^^\n"
        '     = instead: LABEL org.opencontainers.image.authors="me"\n'
        "\n"
        "Check complete, 2 warnings found.\n"
    )


def test_a_clean_file(program: Program) -> None:
    project = program.project(CLEAN)
    assert program.call("check", project).ok().stdout == "Check complete, no warnings found.\n"
    assert program.call("build", project, "--check").ok().stdout == "Check complete, no warnings found.\n"
    assert not program.store.exists(), "checking makes no store"


def test_json_has_buildkits_shape(program: Program) -> None:
    ran = program.call("build", program.project(BAD), "--call=check,format=json")
    assert ran.code == 1
    document = json.loads(ran.stdout)
    assert document["warnings"][0] == {
        "ruleName": "WorkdirRelativePath",
        "description": "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
        "url": "https://docs.docker.com/reference/build-checks/workdir-relative-path/",
        "detail": 'Relative workdir "app" can have unexpected results if the base image changes',
        "advice": "WORKDIR /app",
        "location": {"ranges": [{"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 11}}]},
    }
    (source,) = document["sources"]
    assert base64.b64decode(source["data"]).decode() == BAD
    assert source["filename"].endswith("Dockerfile")


def test_sarif_holds_what_the_standard_requires(program: Program) -> None:
    dockerfile = "# check=error=true\nFROM alpine\nMAINTAINER me\n"
    ran = program.call("check", program.project(dockerfile), "--format", "sarif", "--strict")
    assert ran.code == 1
    document = json.loads(ran.stdout)
    assert document["version"] == "2.1.0"
    assert "sarif-2.1.0" in document["$schema"]
    (run,) = document["runs"]
    described = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "buildgraph"
    assert [rule["id"] for rule in described] == ["UnpinnedVersion", "MaintainerDeprecated"]
    assert described[1]["helpUri"].startswith("https://")
    assert all(rule["shortDescription"]["text"] for rule in described)
    for result in run["results"]:
        assert described[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == "error"
        assert result["message"]["text"]
        place = result["locations"][0]["physicalLocation"]
        assert re.fullmatch(r"[\w.:/%~-]+Dockerfile", place["artifactLocation"]["uri"])
    assert run["results"][1]["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 3, "startColumn": 1, "endLine": 3, "endColumn": 14,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json", "sarif"])
def test_a_file_that_cannot_be_parsed(program: Program, form: str) -> None:
    failed = program.call("check", program.project("FROM scratch\nRNU x\n"), "--format", form).failed(3)
    assert "unknown instruction RNU, did you mean RUN?" in failed.stderr
    assert "2 | RNU x" in failed.stderr
    if form == "json":
        error = json.loads(failed.stdout)["buildError"]
        assert error["location"]["ranges"][0]["start"]["line"] == 2
    elif form == "sarif":
        (result,) = json.loads(failed.stdout)["runs"][0]["results"]
        assert result["ruleId"] == "InvalidDockerfile"
    else:
        assert not failed.stdout


def test_strange_texts_stay_harmless(program: Program) -> None:
    project = program.project("")
    (project / "Dockerfile").write_bytes(b"FROM scratch\nMAINTAINER \x1b[31m\xff\xe2\x80\xa8me\nWORKDIR \x1b]0;x\x07\n")
    for form in ("text", "json", "sarif"):
        ran = program.call("check", project, "--format", form)
        assert ran.code == 1
        assert "\x1b" not in ran.stdout
        if form != "text":
            json.loads(ran.stdout)


# what is checked


def test_all_stages_without_a_target_and_its_needs_with_one(program: Program) -> None:
    dockerfile = "FROM scratch AS a\nWORKDIR x\nFROM scratch AS b\nWORKDIR y\nFROM scratch\nCOPY --from=b /y /\n"
    assert rules(program, dockerfile) == [("WorkdirRelativePath", 2), ("WorkdirRelativePath", 4)]
    assert rules(program, dockerfile, "--target=a") == [("WorkdirRelativePath", 2)]
    assert rules(program, dockerfile, "--target=2") == [("WorkdirRelativePath", 4)]
    failed = program.call("check", program.project(dockerfile.replace("AS a", "AS alpha")), "--target=alfa").failed(3)
    assert "did you mean alpha?" in failed.stderr


def test_a_file_alone_has_no_context(program: Program) -> None:
    project = program.project("FROM scratch\nCOPY secret /\n", {".dockerignore": "secret\n"})
    assert program.call("check", cwd=project).code == 1
    assert program.call("check", project).code == 1
    assert program.call("check", "-f", "Dockerfile", cwd=project).code == 0
    assert program.call("check", "-f", project / "Dockerfile", project).code == 1
    assert program.call("check", "-", input=b"FROM scratch\nMAINTAINER me\n").code == 1


def test_an_image_of_the_store_is_known(program: Program) -> None:
    base = program.project("FROM scratch\nENV GOPATH=/go\n", name="base")
    program.build(base, "-t", "golang:1").ok()
    dockerfile = "FROM golang:1\nCOPY $GOPATH $GOROOT/\n"
    assert rules(program, dockerfile) == [("UndefinedVar", 2)]
    assert rules(program, dockerfile, "--store", str(program.root / "other")) == []
    assert rules(program, dockerfile, "--build-context", "golang:1=docker-image://x") == []


def test_a_store_that_cannot_be_opened_does_not_matter(program: Program) -> None:
    program.store.mkdir()
    (program.store / "data.mdb").write_bytes(b"no database")
    assert rules(program, "FROM golang:1\nMAINTAINER me\n") == [("MaintainerDeprecated", 2)]


# controls

CONTROLLED = "FROM scratch\nWORKDIR app\nMAINTAINER me\n"
BOTH = [("WorkdirRelativePath", 3), ("MaintainerDeprecated", 4)]


@pytest.mark.parametrize(
    ("directive", "left"),
    [
        ("skip=MaintainerDeprecated", BOTH[:1]),
        ("skip=maintainerdeprecated , WorkdirRelativePath", []),
        ("skip=all", []),
        ("error=false", BOTH),
        ("skip=WorkdirRelativePath;error=true", BOTH[1:]),
        ("skip=NoSuchRule;", BOTH),
    ],
)
def test_directive(program: Program, directive: str, left: list[tuple[str, int]]) -> None:
    assert rules(program, f"# check={directive}\n{CONTROLLED}") == left


def test_a_misspelt_rule_is_told(program: Program) -> None:
    ran = program.call("check", program.project(f"# check=skip=JSONArgRecommended\n{CLEAN}")).ok()
    assert ran.stderr == "WARNING: there is no rule jsonargrecommended, did you mean JSONArgsRecommended?\n"


def test_comment_above_an_instruction_controls_that_one(program: Program) -> None:
    twice = "FROM scratch AS a\n# check=skip=WorkdirRelativePath\nWORKDIR x\nFROM scratch\nWORKDIR y\n"
    assert rules(program, twice) == [("WorkdirRelativePath", 5)]
    experimental = "FROM scratch AS a\n# check=experimental=SudoInRun\nRUN sudo x\nRUN sudo y\n"
    assert rules(program, experimental) == [("SudoInRun", 3)]


def test_build_argument_and_environment_replace_the_directive(program: Program) -> None:
    dockerfile = f"# check=skip=all\n{CONTROLLED}"
    argument = "BUILDKIT_DOCKERFILE_CHECK=skip=MaintainerDeprecated"
    assert rules(program, dockerfile, "--build-arg", argument) == BOTH[:1]
    program.env["BUILDKIT_DOCKERFILE_CHECK"] = "error=true"
    assert rules(program, dockerfile) == BOTH


def test_experimental_and_strict(program: Program) -> None:
    dockerfile = "# comment\nFROM scratch AS base\nRUN sudo true\n"
    assert rules(program, dockerfile) == []
    assert rules(program, f"# check=experimental=all\n{dockerfile}") == [("InvalidDefinitionDescription", 3)]
    assert rules(program, f"# check=experimental=SudoInRun\n{dockerfile}") == [("SudoInRun", 4)]
    assert rules(program, dockerfile, "--strict") == [("SudoInRun", 3)]
    assert rules(program, f"# check=skip=SudoInRun\n{dockerfile}", "--strict") == []


@pytest.mark.parametrize(
    ("directive", "text"),
    [
        ("skpi=A", "unknown check option skpi=A, did you mean skip?"),
        ("error=maybe", "true or false, not maybe"),
        ("skip", "unknown check option skip"),
    ],
)
def test_malformed_controls(program: Program, directive: str, text: str) -> None:
    failed = program.call("check", program.project(f"# check={directive}\nFROM scratch\n")).failed(3)
    assert text in failed.stderr
    assert f"1 | # check={directive}" in failed.stderr
    assert (
        text in program.call("check", program.project(f"FROM scratch\n# check={directive}\nUSER a\n")).failed(3).stderr
    )
    argument = f"BUILDKIT_DOCKERFILE_CHECK={directive}"
    assert text in program.call("check", program.project(CLEAN), "--build-arg", argument).failed(2).stderr


# in a build


def test_a_build_tells_when_it_is_over(program: Program) -> None:
    project = program.project("FROM scratch AS unused\nWORKDIR x\nFROM scratch\nMAINTAINER me\nWORKDIR app\n")
    for _ in range(2):
        ran = program.call("build", project, "--progress", "plain").ok()
        assert (
            "WARNING: 2 warnings found (use --check to expand):\n"
            " - MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 4)\n"
            ' - WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes (line 5)\n'
        ) in ran.stderr
    assert program.call("build", project, "-q").ok().stderr == ""
    events = program.build(project).events
    assert [each["event"] for each in events[-2:]] == ["warned", "ended"]


@pytest.mark.parametrize("where", ["directive", "comment", "argument"])
def test_error_true_refuses_before_anything_runs(program: Program, where: str) -> None:
    dockerfile = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\nRUN echo ran\nWORKDIR app\n"
    arguments = []
    if where == "directive":
        dockerfile = f"# check=error=true\n{dockerfile}"
    elif where == "comment":
        dockerfile = dockerfile.replace("WORKDIR", "# check=error=true\nWORKDIR")
    else:
        arguments = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"]
    failed = program.build(program.project(dockerfile), "-t", "never:1", *arguments).failed(3)
    assert "lint violation found for rules: WorkdirRelativePath" in failed.stderr
    assert "| WORKDIR app" in failed.stderr
    assert not failed.executed
    assert "never" not in program.call("image", "ls").ok().stdout


def test_build_arguments_that_nothing_takes(program: Program) -> None:
    project = program.project("FROM scratch\nARG VERSION=1\nWORKDIR /a$VERSION\n")
    given = [
        "--build-arg",
        "VERSON=2",
        "--build-arg",
        "VERSION=3",
        "--build-arg",
        "HTTP_PROXY=x",
        "--build-arg",
        "qqqq=1",
    ]
    text = "one or more build-args were not consumed: VERSON (did you mean VERSION?), qqqq"
    assert f"WARNING: {text}\n" in program.call("build", project, "--progress", "plain", *given).ok().stderr
    assert program.call("check", project, *given).ok().stderr == f"WARNING: {text}\n"


# outline and targets

SEVERAL = """\
# BASE to start from
ARG BASE=scratch
ARG UNUSED=1
# build compiles everything
FROM $BASE AS build
# VERSION of the program
ARG VERSION=1.0 TARGETARCH
RUN --mount=type=secret,id=token,required=true --mount=type=cache,target=/cache/$VERSION --mount=type=ssh true
RUN --mount=type=secret,id=token --mount=type=cache,id=named,target=/x true
FROM scratch AS other
ARG OF_OTHER
FROM --platform=$BUILDPLATFORM scratch
COPY --from=build /x /x
"""


def test_targets(program: Program) -> None:
    project = program.project(SEVERAL)
    assert program.call("build", project, "--call=targets").ok().stdout == (
        "TARGET        BASE      DESCRIPTION\n"
        "build         $BASE     compiles everything\n"
        "other         scratch\n"
        "2 (default)   scratch\n"
    )
    document = json.loads(program.call("build", project, "--call=targets,format=json").ok().stdout)
    assert [(each["name"], each["default"], each["base"], each["platform"]) for each in document["targets"]] == [
        ("build", False, "$BASE", ""),
        ("other", False, "scratch", ""),
        ("", True, "scratch", "$BUILDPLATFORM"),
    ]
    assert document["targets"][0]["description"] == "compiles everything"
    assert document["targets"][0]["location"]["ranges"][0]["start"]["line"] == 5


def test_outline(program: Program) -> None:
    project = program.project(SEVERAL)
    call = ["--call=outline", "--build-arg", "VERSION=2.0", "--platform", "linux/arm64"]
    assert program.call("build", project, *call).ok().stdout == (
        "TARGET:      default\n"
        "\n"
        "BUILD ARG    VALUE     DESCRIPTION\n"
        "BASE         scratch   to start from\n"
        "VERSION      2.0       of the program\n"
        "TARGETARCH   arm64\n"
        "\n"
        "SECRET   REQUIRED\n"
        "token    true\n"
        "\n"
        "SSH       REQUIRED\n"
        "default   false\n"
        "\n"
        "CACHE MOUNT\n"
        "/cache/2.0\n"
        "named\n"
    )
    document: dict[str, Any] = json.loads(
        program.call("build", project, "--call=outline,format=json", "--target=build").ok().stdout
    )
    assert document["name"] == "build"
    assert document["description"] == "compiles everything"
    assert [(each["name"], each["value"]) for each in document["args"]][:2] == [("BASE", "scratch"), ("VERSION", "1.0")]
    assert document["secrets"][0]["required"] is True
    assert [each["ID"] for each in document["cache"]] == ["/cache/1.0", "named"]
    other = json.loads(program.call("build", project, "--call=outline,format=json", "--target=other").ok().stdout)
    assert [each["name"] for each in other["args"]] == ["OF_OTHER"]
    assert "secrets" not in other


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("target", "did you mean targets?"),
        ("outline,format=yaml", "format=yaml is not understood"),
        ("targets,format=sarif", "not understood"),
    ],
)
def test_unknown_calls(program: Program, method: str, text: str) -> None:
    assert text in program.call("build", program.project(CLEAN), f"--call={method}").failed(2).stderr


def test_pages_and_places_of_the_repository() -> None:
    from compiler.checks.registry import BUILDKIT, strict_rules

    pages = {rule.name: rule.url for rule in (*BUILDKIT, *strict_rules())}
    assert pages["JSONArgsRecommended"].endswith("/json-args-recommended/")
    assert pages["FromPlatformFlagConstDisallowed"].endswith("/from-platform-flag-const-disallowed/")
    assert pages["InvalidBaseImagePlatform"] == ""
    assert pages["SudoInRun"] == "docs/checks.md#sudoinrun"


def test_a_remote_context_is_not_fetched(program: Program) -> None:
    failed = program.call("check", "https://example.invalid/x.git").failed(2)
    assert "remote context" in failed.stderr
