"""Whole files: what each instruction becomes, and what is refused with which words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.instructions import (
    Add,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from compiler.dockerfile.parser import Dockerfile, parse_dockerfile, parse_trigger
from compiler.dockerfile.source import Source


def parse(text: str) -> Dockerfile:
    return parse_dockerfile(Source("Dockerfile", text))


def only(line: str) -> Instruction:
    (instruction,) = parse(f"FROM scratch\n{line}\n").stages[0].instructions
    return instruction


def refusal(text: str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    return caught.value


def test_stages_and_global_arguments() -> None:
    file = parse(
        "ARG V=1 W\n# Base what is shared\n# base the tools\nFROM --platform=$BUILDPLATFORM alpine:$V AS Base\n"
        "RUN a\nRUN b \\\n c\n\nfrom base as last-1.x_y\nFROM scratch\n"
    )
    assert [(arg.name, arg.default) for arg in file.args[0].args] == [("V", "1"), ("W", None)]
    assert [(stage.index, stage.name, stage.from_.image) for stage in file.stages] == [
        (0, "base", "alpine:$V"),
        (1, "last-1.x_y", "base"),
        (2, "", "scratch"),
    ]
    first = file.stages[0]
    assert (first.from_.platform, first.from_.description) == ("$BUILDPLATFORM", "the tools")
    assert first.span[1:5] == (4, 1, 7, 2)
    assert [instruction.text for instruction in first.instructions] == ["RUN a", "RUN b  c"]


def test_arguments_take_their_description_from_the_comment() -> None:
    (arg,) = parse("# V the version\n# W  more\nARG V W=\nFROM a\n").args
    assert [tuple(one) for one in arg.args] == [("V", None, "the version"), ("W", "", " more")]


def test_run() -> None:
    run = only("RUN --mount=type=cache,target=/c --mount=target=/d --network=none --security=insecure --device=x ls -l")
    assert isinstance(run, Run)
    assert run.command == ShellForm("ls -l")
    assert run.mounts == ("type=cache,target=/c", "target=/d")
    assert (run.network, run.security, run.devices) == ("none", "insecure", ("x",))
    plain = only('RUN ["ls", "-l"]')
    assert isinstance(plain, Run)
    assert (plain.command, plain.network, plain.security) == (ExecForm(("ls", "-l")), "default", "sandbox")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("RUN <<EOF\nls\nEOF", "ls\n"),
        ("RUN 3<<-'EOF'\n\tls\n\tEOF", "ls\n"),
        ("RUN << EOF\nls\nEOF", "ls\n"),
        ("RUN cat <<EOF\nls\nEOF", None),
        ("RUN <<A <<B\na\nA\nb\nB", None),
        ("RUN <<EOF cat\nls\nEOF", None),
        ("RUN ls", None),
    ],
)
def test_a_sole_heredoc_is_the_script(text: str, script: str | None) -> None:
    run = only(text)
    assert isinstance(run, Run)
    assert (run.script.content if run.script else None) == script
    assert isinstance(run.command, ShellForm)
    assert run.command.text == text.partition("\n")[0].removeprefix("RUN ")


@pytest.mark.parametrize(
    ("rest", "command"),
    [
        ("a  b", ShellForm("a  b")),
        ('["a b", "\\u00e9\\n"]', ExecForm(("a b", "é\n"))),
        ("  [ ]", ExecForm(())),
        ("['a']", ShellForm("['a']")),
        ('["a",]', ShellForm('["a",]')),
        ("[NaN]", ShellForm("[NaN]")),
        ('[ -f "x" ] && y', ShellForm('[ -f "x" ] && y')),
        ('["\\ud800"]', ExecForm(("\ufffd",))),
        ("[" * 9000, ShellForm("[" * 9000)),
        ("", ShellForm("")),
    ],
)
def test_shell_and_exec_form(rest: str, command: ShellForm | ExecForm) -> None:
    for keyword, kind in (("CMD", Cmd), ("ENTRYPOINT", Entrypoint)):
        instruction = only(f"{keyword} {rest}")
        assert isinstance(instruction, kind)
        assert instruction.command == command


def test_copy_and_add() -> None:
    copy = only("COPY --from=b --chown=1:2 --chmod=u+x --link=false --parents --exclude=*.a --exclude=b a* ./b /c/")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination, copy.from_) == (("a*", "./b"), "/c/", "b")
    assert (copy.chown, copy.chmod, copy.link, copy.parents) == ("1:2", "u+x", False, True)
    assert copy.exclude == ("*.a", "b")
    add = only('ADD --checksum=sha256:x --keep-git-dir --unpack=FALSE ["a b", "/c d/"]')
    assert isinstance(add, Add)
    assert (add.sources, add.destination, add.checksum) == (("a b",), "/c d/", "sha256:x")
    assert (add.keep_git_dir, add.unpack, add.link) == (True, False, False)
    plain = only("ADD a b")
    assert isinstance(plain, Add)
    assert (plain.keep_git_dir, plain.unpack) == (None, None)


def test_copy_of_heredocs() -> None:
    copy = only("COPY <<a.txt x <<'b' /d/\n$A\na.txt\n$B\nb\n")
    assert isinstance(copy, Copy)
    assert copy.sources == ("x",)
    assert [(h.name, h.body, h.expand) for h in copy.heredocs] == [("a.txt", "$A\n", True), ("b", "$B\n", False)]
    assert copy.text == "COPY <<a.txt x <<'b' /d/"


@pytest.mark.parametrize(
    ("line", "pairs", "legacy"),
    [
        ("ENV a=1 b='2 3' c=\"4 5\" d=6\\ 7", [("a", "1"), ("b", "'2 3'"), ("c", '"4 5"'), ("d", "6\\ 7")], False),
        ("ENV a b c=d", [("a", "b c=d")], True),
        ("ENV a = b", [("a", "= b")], True),
        ("ENV a\tb", [("a", "b")], True),
        ("ENV a=", [("a", "")], False),
        ('LABEL "a b"=c d=e=f', [('"a b"', "c"), ("d", "e=f")], False),
    ],
)
def test_pairs(line: str, pairs: list[tuple[str, str]], legacy: bool) -> None:
    instruction = only(line)
    assert isinstance(instruction, Env | Label)
    assert ([tuple(pair) for pair in instruction.pairs], instruction.legacy) == (pairs, legacy)


def test_healthcheck() -> None:
    check = only("HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0s --retries=3 cmd curl -f x || exit 1")
    assert isinstance(check, Healthcheck)
    assert check.test == ("CMD-SHELL", "curl -f x || exit 1")
    assert check[1:6] == (90_000_000_000, 1_500_000_000, 0, 0, 3)
    assert only('HEALTHCHECK CMD ["a","b"]')[0] == ("CMD", "a", "b")
    assert only("HEALTHCHECK none")[0] == ("NONE",)


def test_single_values() -> None:
    assert isinstance(shell := only('SHELL ["/bin/bash", "-c"]'), Shell)
    assert shell.args == ("/bin/bash", "-c")
    assert isinstance(expose := only("EXPOSE 80 $P/udp 10-12"), Expose)
    assert expose.ports == ("80", "$P/udp", "10-12")
    assert isinstance(volume := only('VOLUME [" /a b "]'), Volume)
    assert volume.paths == ("/a b",)
    assert isinstance(volume := only("VOLUME [/a, /b]"), Volume)
    assert volume.paths == ("[/a,", "/b]")
    assert isinstance(user := only('USER "a b":c'), User)
    assert user.user == '"a b":c'
    assert isinstance(workdir := only('workdir "/a b"'), Workdir)
    assert workdir.path == '"/a b"'
    assert isinstance(signal := only("STOPSIGNAL SIGRTMIN+3"), StopSignal)
    assert signal.signal == "SIGRTMIN+3"
    assert isinstance(maintainer := only("MAINTAINER A <b@c>"), Maintainer)
    assert maintainer.name == "A <b@c>"


def test_onbuild() -> None:
    onbuild = only("ONBUILD  COPY --from=x <<EOF /a\nbody\nEOF\n")
    assert isinstance(onbuild, OnBuild)
    assert onbuild.trigger == "COPY --from=x <<EOF /a\nbody\nEOF"
    assert isinstance(onbuild.instruction, Copy)
    again = parse_trigger(onbuild.trigger, "ONBUILD of base")
    assert isinstance(again, Copy)
    assert (again.from_, again.heredocs, again.text) == ("x", onbuild.instruction.heredocs, "COPY --from=x <<EOF /a")
    assert again.span.source.name == "ONBUILD of base"


@pytest.mark.parametrize("text", ["FROM a", "ONBUILD RUN a", "MAINTAINER a", "", "RUN a\nRUN b", "RUNN a"])
def test_bad_triggers_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_trigger(text, "ONBUILD of base")
    assert str(caught.value).startswith("ONBUILD of base:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no instructions"),
        ("# only\n\n# comments\n", "no instructions"),
        ("ARG a\n", "no FROM"),
        ("RUN a\nFROM b\n", "RUN stands before the first FROM"),
        ("FORM a\n", "unknown instruction FORM, did you mean FROM?"),
        ("FROM a\nxyzzy\n", "unknown instruction xyzzy"),
        ("FROM a\n\\\n", "without an instruction"),
        ("FROM", "FROM takes an image"),
        ("FROM a b", "FROM takes an image"),
        ("FROM a is b", "FROM takes an image"),
        ("FROM a AS 1b", "no name for a stage"),
        ("FROM a AS b/c", "no name for a stage"),
        ("FROM --platfrom=x a", "unknown flag --platfrom, did you mean --platform?"),
    ],
)
def test_refused_files(text: str, message: str) -> None:
    assert message in refusal(text).message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN []", "no program"),
        ("RUN [1]", "strings only"),
        ('RUN ["a", ["b"]]', "strings only"),
        ("RUN --network=bridge a", "--network is default, none or host"),
        ("RUN --security=x a", "--security is sandbox or insecure"),
        ("RUN --mount a", "--mount needs a value"),
        ("RUN --mount=type=bind,from=$X,target=/a b", "from takes no variables"),
        ("RUN --mount=target b", "needs a value"),
        ("COPY a", "at least one source and a destination"),
        ('COPY ["a"]', "at least one source and a destination"),
        ("COPY a <<EOF\nx\nEOF", "cannot write to a heredoc"),
        ("COPY << EOF /a\nx\nEOF", "without a space"),
        ("COPY --from=$X a b", "takes no variables"),
        ("COPY --link=yes a b", "--link is true or false"),
        ("COPY --link= a b", "--link is true or false"),
        ("COPY --chown a b", "--chown needs a value"),
        ("COPY --from=a --from=b c d", "--from is given twice"),
        ("COPY --link --link c d", "--link is given twice"),
        ("COPY --unpack a b", "unknown flag --unpack"),
        ("ADD --from=a b c", "unknown flag --from"),
        ("CMD --x a", "unknown flag --x"),
        ("CMD [null]", "strings only"),
        ("ENV a", "ENV a needs a value"),
        ("ENV", "at least one"),
        ("ENV a=b c", "c has no ="),
        ("ENV =b", "is empty"),
        ("LABEL a", "LABEL a needs a value"),
        ("ARG", "at least one name"),
        ("ARG =a", "is empty"),
        ("SHELL bash -c", "JSON array"),
        ("SHELL []", "JSON array"),
        ("HEALTHCHECK", "needs CMD or NONE"),
        ("HEALTHCHECK CONNECT x", "CMD or NONE, not CONNECT"),
        ("HEALTHCHECK NONE x", "takes no arguments"),
        ("HEALTHCHECK CMD", "needs a command"),
        ("HEALTHCHECK CMD []", "needs a command"),
        ("HEALTHCHECK --interval=10 CMD a", "no duration"),
        ("HEALTHCHECK --timeout=1us CMD a", "less than 1ms"),
        ("HEALTHCHECK --timeout=-1s CMD a", "less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD a", "cannot be negative"),
        ("HEALTHCHECK --retries=x CMD a", "is a number"),
        ("EXPOSE", "needs an argument"),
        ("EXPOSE 70000", "no port"),
        ("EXPOSE 80/icmp", "tcp, udp or sctp"),
        ("EXPOSE 9-8", "ends before it starts"),
        ("VOLUME", "at least one path"),
        ("VOLUME []", "at least one path"),
        ('VOLUME [" "]', "cannot be empty"),
        ("USER", "needs an argument"),
        ("WORKDIR", "needs an argument"),
        ("STOPSIGNAL", "needs an argument"),
        ("STOPSIGNAL SIGNONE", "no signal"),
        ("MAINTAINER", "needs an argument"),
        ("ONBUILD", "needs an argument"),
        ("ONBUILD ONBUILD RUN a", "ONBUILD is not allowed as a trigger"),
        ("ONBUILD from a", "FROM is not allowed as a trigger"),
        ("ONBUILD MAINTAINER a", "MAINTAINER is not allowed as a trigger"),
        ("ONBUILD RUM a", "unknown instruction RUM, did you mean RUN?"),
    ],
)
def test_refused_lines(line: str, message: str) -> None:
    error = refusal(f"FROM scratch\n{line}\n")
    assert message in error.message
    assert error.span.first_line == 2


def test_an_error_shows_the_place() -> None:
    error = refusal("FROM a\n\n\tCOPY --link \\\n  --chwon=1 a b\n")
    assert str(error) == (
        "Dockerfile:4:3: unknown flag --chwon, did you mean --chown?\n   4 |   --chwon=1 a b\n     |   ^^^^^^^"
    )
    error = refusal("FROM a\n\tENV \\\n  A\n")
    assert str(error) == (
        "Dockerfile:2:2: ENV A needs a value: write A=VALUE\n   2 | \tENV \\\n     | \t^^^^^\n   3 |   A"
    )


def test_an_excerpt_is_safe_and_bounded() -> None:
    error = refusal("FROM a\nRUNN \x1b[2J\udcff " + "x" * 5000 + "\n")
    assert "\x1b" not in str(error)
    str(error).encode()
    assert len(str(error)) < 1000


WORDS = st.sampled_from([
    "FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "ONBUILD", "CMD", "EXPOSE", "HEALTHCHECK", "VOLUME", "SHELL", "AS",
    "--from=", "--mount=", "--link", "<<E", "E", "[", "]", '"', "'", "\\", "`", "$", "${", "}", "=", ",", ":", "/", "#",
    "# escape=`\n", "\n", "\r\n", "\t", "a", "0", "é", "\udcff", "\u2028",
])  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=80))
def test_any_text_is_parsed_or_refused_with_a_place(text: str) -> None:
    for candidate in (text, f"FROM a\n{text}"):
        try:
            parse(candidate)
        except DockerfileError as error:
            message = error.render()
        else:
            message = "Dockerfile:"
        assert message.startswith("Dockerfile:")
