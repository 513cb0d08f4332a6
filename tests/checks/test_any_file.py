"""Whatever parses can be checked: rules find something or nothing, and never fail."""

from __future__ import annotations

import json

from hypothesis import event, given, settings
from hypothesis import strategies as st

from cache.platform import Platform
from compiler.checks import lint_json, outline, sarif, targets, text
from compiler.checks.control import Control
from compiler.checks.engine import run_checks
from compiler.checks.file import CheckedFile
from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.options import BuildOptions

WORD = st.sampled_from(
    [
        "a",
        "B",
        "$A",
        "${A}",
        "${B:-b}",
        "${A#x}",
        "${A:?no}",
        "'$A'",
        '"$C"',
        "/x",
        "x:latest",
        "80/TCP",
        "1:2:80",
        "../y",
        ".",
        "https://example.com/a.git",
        "x.tar",
    ]
)
SCRIPT = st.lists(
    st.sampled_from(
        [
            "|",
            "||",
            "&&",
            ";",
            "(",
            ")",
            "cd",
            "sudo",
            "apt-get",
            "update",
            "install",
            "-y",
            "curl=",
            "pip",
            "case",
            "in",
            "esac",
            "$A",
            "'x",
            "y'",
            "\\",
            ">",
            "2>&1",
            "`",
            "$(",
            "#",
            "rm",
        ]
    ),
    min_size=1,
).map(" ".join)
WORDS = st.lists(WORD, min_size=1, max_size=4).map(" ".join)
LINES = st.one_of(
    st.builds("FROM {0}".format, WORD),
    st.builds("from --platform={0} {1} as {2}".format, WORD, WORD, st.sampled_from(["a", "B", "scratch"])),
    st.builds("ARG {0}={1} {2}".format, st.sampled_from(["A", "B_TOKEN"]), WORD, st.sampled_from("CD")),
    st.builds("ENV {0}={1} {0}={2}".format, st.sampled_from(["A", "KEY"]), WORD, WORD),
    st.builds("{0} A {1}".format, st.sampled_from(["ENV", "LABEL"]), WORDS),
    st.builds("run {0}".format, SCRIPT),
    st.builds("RUN <<E\n{0}\nE".format, SCRIPT),
    st.builds(
        "RUN --mount=type={0},id={1},target=/{1} true".format,
        st.sampled_from(["secret", "cache", "ssh", "bind,from=b"]),
        WORD,
    ),
    st.builds("{0} {1} /x".format, st.sampled_from(["COPY", "ADD", "COPY --from=b", "COPY --from=0"]), WORDS),
    st.builds(
        "{0} {1}".format,
        st.sampled_from(["CMD", "ENTRYPOINT", "EXPOSE", "USER", "WORKDIR", "VOLUME", "MAINTAINER"]),
        WORDS,
    ),
    st.sampled_from(
        ['SHELL ["a"]', "HEALTHCHECK NONE", "# A is", "# check=skip=all", "# check=error=true", "ONBUILD RUN cd x", ""]
    ),
    st.builds("RUN a \\\n\n  {0}".format, SCRIPT),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(LINES, max_size=12), st.booleans())
def test_any_file(lines: list[str], whole: bool) -> None:
    source = Source("Dockerfile", "\n".join(["ARG A", "FROM scratch AS b", *lines]))
    try:
        dockerfile = parse_dockerfile(source)
        file = CheckedFile(dockerfile, BuildOptions(Platform.parse("linux/amd64")), whole=whole)
        found = run_checks(file, Control.parse("experimental=all"), strict=True)
        outline.render_text(file)
        json.loads(outline.render_json(file))
    except DockerfileError:
        event("no Dockerfile")
        return
    size = len(source.lines())
    assert all(1 <= each.span.first_line <= each.span.last_line <= size for each in found)
    assert all(each.message and each.advice for each in found)
    assert text.render(found).count(" = instead: ") >= len(found)
    assert len(json.loads(lint_json.render(source, found))["warnings"]) == len(found)
    assert len(json.loads(sarif.render(source, found, "1"))["runs"][0]["results"]) == len(found)
    assert len(json.loads(targets.render_json(file))["targets"]) == len(dockerfile.stages)
    targets.render_text(file)
