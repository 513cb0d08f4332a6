"""COPY and mounts: what their result depends on is in the key, and a hit says what a run would say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\n"
EXCLUDED = "FROM base\nCOPY --exclude=sub --exclude=!sub/c src /d/\nRUN stat -c '%a %u:%g' /d/sub && ls /d/sub\n"


def test_a_directory_that_is_excluded_but_for_something_in_it_counts_with_its_mode(program: Program) -> None:
    context = program.project(BASE + EXCLUDED, {"src/sub/c": "c", "src/sub/left": "", "src/a": ""})
    assert program.build(context).ok().output("1.2") == ["755 0:0", "c"]
    (context / "src/sub").chmod(0o711)
    why = program.call("why", "1.1", context, *program.base()).ok().stdout
    assert "src/sub changed mode" in why
    built = program.build(context).ok()
    assert built.executed == ["1.1", "1.2"]
    assert built.output("1.2") == ["711 0:0", "c"]
    (context / "src/sub/left").write_text("what is not copied does not count")
    assert program.build(context).ok().executed == []


def test_on_every_base_it_looks_like_the_sources_directory(program: Program) -> None:
    """I2."""
    files = {"src/sub/c": "c"}
    context = program.project(BASE + EXCLUDED, files)
    program.build(context).ok()
    there = BASE + "FROM base AS other\nRUN mkdir -p /d/sub && chown 5:6 /d/sub && chmod 700 /d/sub\n"
    (context / "Dockerfile").write_text(there + EXCLUDED.replace("FROM base", "FROM other"))
    built = program.build(context).ok()
    assert built.output("2.2") == ["755 0:0", "c"]
    assert program.build(context, "--no-cache").ok().output("2.2") == built.output("2.2")


@pytest.mark.parametrize(
    ("line", "stands"),
    [
        ("COPY --exclude=sub --exclude=!sub/c src /d/", "sub"),
        ("COPY src /d/", "sub/deep/e"),
        ("COPY --exclude=nothing src /d/", "sub/deep/e"),
        ("COPY --parents src/sub/c /d/", "src"),
        ("COPY --parents src/sub /d/", "src/sub"),
        ("COPY --parents src/./sub/deep /d/", "sub/deep"),
        ("COPY --parents src/s*/* /d/", "src/sub/deep"),
    ],
)
def test_a_file_where_a_directory_must_be_is_an_error_also_where_the_copy_is_known(
    program: Program, line: str, stands: str
) -> None:
    """I2."""
    files = {"src/sub/c": "c", "src/sub/deep/e/f": ""}
    context = program.project(f"{BASE}FROM base AS b\nRUN mkdir /d\nFROM b\n{line}\n", files)
    program.build(context).ok()
    assert program.build(context, "--target", "b").ok().executed == []
    (context / "Dockerfile").write_text(
        f"{BASE}FROM base AS b\nRUN mkdir -p $(dirname /d/{stands}) && echo file > /d/{stands}\nFROM b\n{line}\n"
    )
    known = program.build(context).failed(3)
    anew = program.build(context, "--no-cache").failed(3)
    assert "cannot copy" in known.stderr
    assert known.stderr == anew.stderr


def test_what_is_left_out_stands_in_nobodys_way(program: Program) -> None:
    line = "COPY --exclude=sub src /d/\nRUN cat /d/sub\n"
    context = program.project(f"{BASE}RUN mkdir /d && echo file > /d/sub\n{line}", {"src/sub/c": "c", "src/a": ""})
    assert program.build(context).ok().output("base.4") == ["file"]


def test_parents_counts_the_mode_of_the_directory_that_it_names(program: Program) -> None:
    context = program.project(BASE + "COPY --parents src/sub /d/\nRUN stat -c %a /d/src/sub\n", {"src/sub/c": "c"})
    assert program.build(context).ok().output("base.3") == ["755"]
    (context / "src/sub").chmod(0o711)
    assert program.build(context).ok().output("base.3") == ["711"]


def test_a_mounted_directory_has_one_mode_whatever_it_has_in_the_context(each_way: Program) -> None:
    """Its digest is of what is in it."""
    line = "RUN --mount=type=bind,source=sub,target=/m stat -c %a /m /m/in\n"
    context = each_way.project(BASE + line, {"sub/in/f": ""})
    for mode in (0o711, 0o1777):
        (context / "sub").chmod(mode)
        assert each_way.build(context, "--no-cache").ok().output("base.2") == ["755", "755"]
    (context / "sub/in").chmod(0o711)
    assert each_way.build(context).ok().output("base.2") == ["755", "711"], "what is in it counts"
