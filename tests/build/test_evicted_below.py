"""What is evicted and made again may come out otherwise: then what was made from it is made again, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lmdb_store import LmdbStore
from cache.recipe import content_in
from cache.store import Batch

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

NEW = "cat /proc/sys/kernel/random/uuid"
STATUS = f"FROM busybox\nRUN {NEW} > /version\nRUN cp /version /status\nRUN cat /status > /copy\n"
APP = f"FROM busybox AS app\nRUN {NEW} > /app && cp /app /signature\nFROM busybox\n"
COPIES = APP + "COPY --from=app /app /app\nCOPY --from=app /signature /signature\n"


def evict(program: Program, project: Path, *nodes: str) -> None:
    """Have results of steps be gone, as after a clean-up."""
    keys = {node["id"]: node["recipe_key"] for node in program.plan(project)["nodes"]}
    store = LmdbStore(str(program.store))
    try:
        for node in nodes:
            record = store.get("recipes", keys[node])
            assert record is not None
            store.commit(Batch(deleted=(("results", content_in(record)), ("recipes", keys[node]))))
    finally:
        store.close()


def texts(program: Program, project: Path, *names: str) -> list[str]:
    out = program.files(project)
    return [(out / name).read_text() for name in names]


def test_a_step_on_one_that_came_out_otherwise_runs_again(program: Program) -> None:
    project = program.project(STATUS)
    before = texts(program, project, "version", "status", "copy")
    evict(program, project, "0.1")
    plan = {node["id"]: node for node in program.plan(project)["nodes"]}
    assert plan["0.1"]["status"] == "miss"
    assert [(plan[name]["status"], plan[name]["if_same"]) for name in ("0.2", "0.3")] == [("depends", "hit")] * 2
    after = texts(program, project, "version", "status", "copy")
    assert len(set(after)) == 1, "all three are of one run"
    assert after != before
    assert set(program.statuses(project).values()) == {"hit"}


def test_nothing_else_runs_if_it_comes_out_the_same(program: Program) -> None:
    project = program.project("FROM busybox\nRUN echo 1 > /a\nRUN cp /a /b\nFROM busybox\nRUN cp /bin/sh /c\nCOPY --from=0 /b /b\n")
    program.build(project).ok()
    evict(program, project, "0.1", "0.2", "1.1")
    ran = program.build(project).ok()
    assert ran.executed == ["1.1"], "the copy is kept, and so nobody needs what it was taken from"
    assert "1.2" in ran.cached


def test_the_lines_of_a_build_that_begins_again_stand_there_once(program: Program) -> None:
    project = program.project(STATUS)
    program.build(project).ok()
    evict(program, project, "0.1")
    ran = program.build(project, "--progress", "plain").ok()
    assert ran.stderr.count("CACHED") == 1, "the FROM's busybox alone"
    assert ran.stderr.count("DONE") == 3
    assert "3 ran, 1 cached" in ran.stderr


def test_two_copies_of_one_stage_are_of_one_run_of_it(program: Program) -> None:
    project = program.project(COPIES)
    program.build(project).ok()
    evict(program, project, "app.1", "1.1")
    app, signature = texts(program, project, "app", "signature")
    assert app == signature


def test_what_another_dockerfile_made_again_counts_here_too(program: Program) -> None:
    project = program.project(STATUS)
    program.build(project).ok()
    evict(program, project, "0.1")
    other = program.project(STATUS.partition("RUN cp")[0], name="other")
    program.build(other).ok()
    statuses = program.statuses(project)
    assert statuses["0.1"] == "hit"
    assert statuses["0.2"] == "miss"
    assert len(set(texts(program, project, "version", "status", "copy"))) == 1


def test_two_kept_copies_of_different_runs_do_not_meet(program: Program) -> None:
    """Nobody has the stage any more, and still they cannot be of one run."""
    project = program.project(COPIES)
    program.build(project).ok()
    evict(program, project, "app.1", "1.1")
    other = program.project(COPIES.partition("COPY --from=app /signature")[0], name="other")
    program.build(other).ok()
    evict(program, project, "app.1")
    app, signature = texts(program, project, "app", "signature")
    assert app == signature
