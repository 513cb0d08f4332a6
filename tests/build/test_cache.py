"""What runs again and what does not, as seen in the events of real builds."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\n"


def test_a_second_build_runs_nothing_and_gives_the_same_image(each_way: Program) -> None:
    project = each_way.project(BASE + "FROM base\nRUN echo one > /one\nWORKDIR /app\nCOPY a.txt .\nRUN cat a.txt > b\n", {"a.txt": "a"})
    first = each_way.build(project, "--iidfile", each_way.root / "first").ok()
    assert first.executed == ["base.1", "1.1", "1.2", "1.3", "1.4"]
    second = each_way.build(project, "--iidfile", each_way.root / "second").ok()
    assert second.executed == []
    assert second.cached == ["base.1", "1.1", "1.2", "1.3", "1.4"]
    assert (each_way.root / "first").read_text() == (each_way.root / "second").read_text()


def test_only_what_depends_on_a_changed_file_runs(program: Program) -> None:
    project = program.project(
        BASE
        + "FROM base AS one\nCOPY one /one\nRUN cp /one /out\n"
        + "FROM base AS two\nCOPY two /two\nRUN cp /two /out\n"
        + "FROM base\nCOPY --from=one /out /1\nCOPY --from=two /out /2\n",
        {"one": "1", "two": "2"},
    )
    program.build(project).ok()
    (project / "two").write_text("changed")
    assert program.build(project).ok().executed == ["two.1", "two.2", "3.2"]


def test_a_run_that_makes_the_same_content_again_ends_the_rebuild(program: Program) -> None:
    project = program.project(
        BASE + "FROM base\nCOPY notes /notes\nRUN grep -v '^#' /notes > /code; rm /notes\nRUN cp /code /built\n",
        {"notes": "# first\ncode\n"},
    )
    first = program.build(project, "--iidfile", program.root / "first").ok()
    assert first.executed == ["base.1", "1.1", "1.2", "1.3"]
    # The layer of COPY differs, so what RUN works on does; its own result says the same.
    (project / "Dockerfile").write_text(
        BASE
        + "FROM base AS made\nCOPY notes /notes\nRUN grep -v '^#' /notes > /code\n"
        + "FROM base\nCOPY --from=made /code /code\nRUN cp /code /built\n"
    )
    program.build(project).ok()
    (project / "notes").write_text("# second\ncode\n")
    assert program.build(project).ok().executed == ["made.1", "made.2"]


def test_a_rerun_run_stops_the_steps_above_it(program: Program) -> None:
    project = program.project(BASE + "FROM base\nARG NOISE\nRUN echo fixed > /fixed\nENV NOISE=\nRUN cp /fixed /after\n")
    program.build(project, "--build-arg", "NOISE=1").ok()
    again = program.build(project, "--no-cache-filter", "1").ok()
    assert again.executed == ["1.2", "1.4"]
    third = program.build(project, "--build-arg", "NOISE=2").ok()
    assert third.executed == ["1.2"], "the second RUN sees the same files and no NOISE"


def test_no_cache_filter_takes_names_and_numbers_and_refuses_what_is_no_stage(program: Program) -> None:
    project = program.project(BASE + "FROM base AS Made\nRUN echo a > /a\nFROM base\nCOPY --from=made /a /a\n")
    program.build(project).ok()
    for stage in ("MADE", "1", "made,2"):
        assert "made.1" in program.build(project, "--no-cache-filter", stage).ok().executed
    assert program.build(project, "--no-cache-filter", "").ok().executed == []
    for command in ("build", "plan"):
        refused = program.call(command, project, *program.base(), "--no-cache-filter", "mode").failed(2)
        assert "--no-cache-filter mode: the Dockerfile has no such stage, did you mean made?" in refused.stderr
        assert "hint: its stages are base, made, 2" in refused.stderr


def test_comments_and_layout_of_the_dockerfile_rerun_nothing(program: Program) -> None:
    project = program.project(BASE + "FROM base\nRUN echo a && \\\n    echo b\nCOPY x /x\n", {"x": "x"})
    program.build(project).ok()
    (project / "Dockerfile").write_text(
        "# a comment\n" + BASE + "\n\nFROM base AS renamed\n# another\nRUN echo a && \\\n    # inside\n    echo b\n\ncopy x /x\n"
    )
    assert program.build(project).ok().executed == []


def test_moving_stages_and_unused_arguments_rerun_nothing(program: Program) -> None:
    a, b = "FROM base AS a\nRUN echo a > /a\n", "FROM base AS b\nRUN echo b > /b\n"
    last = "FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    project = program.project(BASE + a + b + last)
    program.build(project).ok()
    (project / "Dockerfile").write_text(BASE + b + "ARG OTHER=1\nARG EMPTY\n" + a + "ARG EMPTY\n" + last)
    assert program.build(project).ok().executed == []


def test_equal_steps_of_two_dockerfiles_are_shared(program: Program) -> None:
    first = program.project(BASE + "FROM base\nRUN echo shared > /s\nRUN echo one\n", name="first")
    second = program.project(BASE + "FROM base\nRUN echo shared > /s\nRUN echo two\n", name="second")
    program.build(first).ok()
    assert program.build(second).ok().executed == ["1.2"]


def test_keys_do_not_depend_on_place_time_umask_or_order(program: Program) -> None:
    """I1."""
    files = {"src/b.txt": "b", "src/a.txt": "a", "src/deep/c.sh": "#!/bin/sh\n", "z": "z"}
    dockerfile = BASE + "FROM base\nCOPY . /all\nCOPY src/*.txt /some/\nRUN find /all\n"
    first = program.project(dockerfile, files, name="first")
    (first / "src/deep/c.sh").chmod(0o755)
    program.build(first).ok()
    for name, umask in (("group", 0o002), ("private", 0o077)):
        script = (
            f"umask {umask:04o}; mkdir -p {name}/src/deep; cd {name}; "
            "printf z > z; printf a > src/a.txt; printf '#!/bin/sh\\n' > src/deep/c.sh; printf b > src/b.txt; "
            f"chmod u+x src/deep/c.sh; chmod $(printf '%o' $((0777 & ~{umask:#o} ))) src/deep/c.sh"
        ).replace("0o", "0")
        subprocess.run(["bash", "-c", script], cwd=program.root, check=True)
        second = program.root / name
        shutil.copy(first / "Dockerfile", second / "Dockerfile")
        (second / "Dockerfile").chmod(0o644 & ~umask)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "1234:1234", second], check=True)
        assert set(program.statuses(second).values()) == {"hit"}, name
        first_keys = {n["id"]: n["recipe_key"] for n in program.plan(first)["nodes"]}
        assert first_keys == {n["id"]: n["recipe_key"] for n in program.plan(second)["nodes"]}


def test_a_file_of_equal_size_and_mtime_that_changed_is_noticed(program: Program) -> None:
    project = program.project(BASE + "FROM base\nCOPY f /f\n", {"f": "old"})
    os.utime(project / "f", ns=(1_600_000_000_000_000_000,) * 2)
    program.build(project).ok()
    (project / "f").write_text("new")
    os.utime(project / "f", ns=(1_600_000_000_000_000_000,) * 2)
    assert program.build(project).ok().executed == ["1.1"]


def test_what_finished_before_a_failure_is_kept(program: Program) -> None:
    project = program.project(BASE + "FROM base\nRUN echo kept > /kept\nRUN exit 3\n")
    program.build(project).failed(1)
    (project / "Dockerfile").write_text(BASE + "FROM base\nRUN echo kept > /kept\nRUN exit 0\n")
    assert program.build(project).ok().executed == ["1.2"]


def test_a_new_base_image_reuses_copies_and_reruns_runs(program: Program) -> None:
    """DESIGN section 4: only RUN depends on the whole root filesystem."""
    dockerfile = BASE + "RUN echo {} > /version\nFROM base\nWORKDIR /app\nCOPY f .\nRUN cat f /version\n"
    project = program.project(dockerfile.format(1), {"f": "f"})
    program.build(project).ok()
    (project / "Dockerfile").write_text(dockerfile.format(2))
    again = program.build(project).ok()
    assert again.executed == ["base.2", "1.3"]


def test_only_the_target_is_built(program: Program) -> None:
    project = program.project(BASE + "FROM base AS broken\nRUN exit 1\nFROM base AS fine\nRUN echo fine\n")
    assert program.build(project, "--target", "fine").ok().executed == ["base.1", "fine.1"]


def test_two_builds_at_once_run_equal_steps_once(program: Program) -> None:
    project = program.project(BASE + "FROM base\nRUN sleep 1; echo slow > /slow\n")
    command = program.command("build", project, *program.base(), "--progress", "rawjson")
    builds = [subprocess.Popen(command, env=program.env, stderr=subprocess.PIPE) for _ in range(3)]
    ended = [(build.communicate(timeout=60)[1].decode(), build.returncode) for build in builds]
    assert [code for _, code in ended] == [0, 0, 0], ended
    ran = sum(text.count('"id": "1.1", "status": "done"') or text.count('"id":"1.1","status":"done"') for text, _ in ended)
    assert ran == 1


def test_the_store_can_be_cleared(each_way: Program) -> None:
    project = each_way.project(BASE + "FROM base\nRUN --mount=type=cache,target=/c mkdir -p /c/d /x && chown -R 1000:1000 /c/d /x && chmod 0 /c/d\n")
    each_way.build(project, "-t", "x:1").ok()
    each_way.call("cache", "clear").ok()
    assert list(each_way.store.iterdir()) == []
    assert len(each_way.build(project).ok().executed) == 2
    assert "is no store" in each_way.call("cache", "clear", "--store", project).failed(2).stderr
