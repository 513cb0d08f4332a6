"""Lowering: stages, contexts, triggers and steps become a graph; what only it can find wrong is told with the line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.errors import RemoteError
from cache.image_config import ImageConfig
from compiler.dockerfile.errors import DockerfileError
from compiler.failure import FailedAt
from compiler.graph import ContextSource, ImageSource
from tests.compiler.graphs import AMD64, World, config_of, history_of, image, lower, made_image, runs
from worker.operation import Copy, MakeDirectory, Pattern

if TYPE_CHECKING:
    from cache.platform import Platform


# stages


THREE = "FROM base AS one\nRUN 1\nFROM base AS Two\nRUN 2\nFROM base\nRUN 3\n"


@pytest.mark.parametrize(
    ("target", "expected"), [("", "3"), ("one", "1"), ("ONE", "1"), ("two", "2"), ("0", "1"), ("1", "2"), ("2", "3")]
)
def test_the_target_by_name_and_number(target: str, expected: str) -> None:
    assert [run.argv[-1] for run in runs(lower(THREE, target=target))] == [expected], "and nothing that it does not need"


@pytest.mark.parametrize("target", ["tow", "3", "-1", "²"])
def test_a_target_that_is_not_there(target: str) -> None:
    with pytest.raises(DockerfileError, match="no stage") as raised:
        lower(THREE, target=target)
    assert ("did you mean two" in str(raised.value).lower()) == (target == "tow")


def test_a_stage_may_be_named_like_a_number() -> None:
    lowering = lower("FROM base AS one\nRUN 1\nFROM base\nCOPY --from=0 a b\nCOPY --from=ONE c d\n")
    copies = [node for node in lowering.graph if node.kind == "copy"]
    assert [node.inputs[1] for node in copies] == ["one", "one"]


def test_of_two_stages_of_one_name_the_last_above_counts() -> None:
    text = "FROM base AS x\nRUN 1\nFROM base AS x\nRUN 2\nFROM x\nRUN 3\n"
    assert [run.argv[-1] for run in runs(lower(text))] == ["2", "3"]


def test_a_stage_named_like_its_image_is_built_on_the_image() -> None:
    lowering = lower("FROM base AS base\nRUN 1\nFROM base\nRUN 2\n")
    assert [run.argv[-1] for run in runs(lowering)] == ["1", "2"]
    assert [node.id for node in lowering.graph if node.kind == "image"] == ["image:base"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM base AS one\nCOPY --from=two a b\nFROM base AS two\nFROM one\n", "comes later"),
        ("FROM base AS one\nCOPY --from=one a b\n", "itself"),
        ("FROM base\nCOPY --from=0 a b\n", "itself"),
        ("FROM base\nCOPY --from=7 a b\n", "no stage number 7"),
        ("FROM base\nRUN --mount=type=bind,from=9,target=/x y\n", "no stage number 9"),
    ],
)
def test_a_stage_can_only_take_from_those_above(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        lower(text)


def test_from_a_stage_inherits_everything() -> None:
    text = (
        "FROM base AS one\nENV E=1\nWORKDIR /w\nUSER u\nSHELL [\"/bin/bash\", \"-c\"]\nLABEL l=1\nCMD c\nEXPOSE 80\n"
        "FROM one\nRUN x\n"
    )
    lowering = lower(text)
    (run,) = runs(lowering)
    assert (run.argv, run.cwd, run.user) == (("/bin/bash", "-c", "x"), "/w", "u")
    config = config_of(lowering)
    assert (config.working_dir, config.user, config.labels, config.exposed_ports) == ("/w", "u", (("l", "1"),), ("80/tcp",))
    assert config.cmd == ("/bin/bash", "-c", "c")
    assert history_of(lowering)[0] == "ENV E=1", "the history of the stage below, too"


def test_stages_that_nobody_needs_are_not_resolved() -> None:
    world = World()
    lower("FROM expensive AS one\nFROM base\nRUN x\n", world)
    assert world.asked == [("base", "linux/amd64")]


# named contexts


def test_a_named_context_stands_for_an_image_everywhere() -> None:
    other = made_image("other", ImageConfig("amd64", "linux", env=("FROM=other",)))
    world = World(contexts={"base": other})
    lowering = lower("FROM base\nRUN x\nCOPY --from=base a b\n", world)
    assert world.asked == []
    assert dict(runs(lowering)[0].env)["FROM"] == "other"
    assert {node.definition for node in lowering.graph if isinstance(node.definition, ImageSource)} == {other.source}


def test_a_named_context_replaces_a_stage_by_its_name() -> None:
    other = made_image("other", ImageConfig("amd64", "linux"))
    lowering = lower("FROM base AS tools\nRUN never\nFROM base\nCOPY --from=tools a b\n", World(contexts={"tools": other}))
    assert runs(lowering) == []


def test_a_stage_that_a_named_context_replaces_beside_the_image_itself() -> None:
    world = World(contexts={"one": made_image("other", ImageConfig("amd64", "linux"))})
    lowering = lower("FROM base AS one\nCOPY --from=base a b\n", world)
    assert len([node for node in lowering.graph if node.kind == "image"]) == 2


def test_one_url_with_and_without_a_checksum_is_two_sources() -> None:
    url = "https://example.com/file"
    lowering = lower(f"FROM base\nADD {url} /a\nADD --checksum=sha256:{'0' * 64} {url} /b\nADD {url} /c\n")
    assert len([node for node in lowering.graph if node.kind == "http"]) == 2


def test_a_named_directory_can_be_copied_from_and_built_on() -> None:
    world = World(contexts={"files": ContextSource("files")})
    lowering = lower("FROM base\nCOPY --from=files a b\n", world)
    assert [node.id for node in lowering.graph if node.kind == "context"] == ["context:files"]
    lowering = lower("FROM files AS here\nRUN x\n", world)
    assert [(node.id, node.kind) for node in lowering.graph] == [
        ("scratch", "scratch"), ("context:files", "context"), ("here.0", "copy"), ("here.1", "run"), ("here", "stage")
    ]  # fmt: skip


# ONBUILD


def test_triggers_run_first_and_once() -> None:
    lowering = lower("FROM base AS one\nRUN own\nFROM one\nRUN later\n", image(on_build=("RUN trigger", "ENV T=1")))
    assert [run.argv[-1] for run in runs(lowering)] == ["trigger", "own", "later"]
    assert dict(runs(lowering)[1].env)["T"] == "1"
    assert config_of(lowering).on_build == ()


def test_onbuild_of_a_stage_runs_in_the_stage_above() -> None:
    lowering = lower("FROM base AS one\nONBUILD RUN trigger\nFROM one\nRUN own\n")
    assert [run.argv[-1] for run in runs(lowering)] == ["trigger", "own"]
    assert config_of(lower("FROM base\nONBUILD RUN trigger\n")).on_build == ("RUN trigger",)
    assert history_of(lower("FROM base\nONBUILD RUN trigger\n")) == []


def test_a_trigger_may_need_another_stage() -> None:
    lowering = lower("FROM base AS files\nRUN 1\nFROM parent\n", World({"parent": ImageConfig("amd64", "linux", on_build=("COPY --from=files /a /b",))}))
    assert [node.inputs[1] for node in lowering.graph if node.kind == "copy"] == ["files"]


# steps


@pytest.mark.parametrize(
    ("workdir", "destination", "expected"),
    [
        ("/", "x", "/x"), ("/a", "x", "/a/x"), ("/a", "x/", "/a/x/"), ("/a", ".", "/a/"), ("/a", "./", "/a/"), ("/a", "/x", "/x"),
        ("/a", "../x", "/x"), ("/a", "../../../x/", "/x/"), ("/a", "x//y/./", "/a/x/y/"), ("/a", "/", "/"), ("/", ".", "/"),
    ],
)  # fmt: skip
def test_a_destination_is_seen_from_the_working_directory(workdir: str, destination: str, expected: str) -> None:
    lowering = lower(f"FROM base\nWORKDIR {workdir}\nCOPY f {destination}\n")
    (copy,) = [node.definition for node in lowering.graph if isinstance(node.definition, Copy)]
    assert copy.destination == expected


def test_workdirs_add_up_and_the_root_makes_no_layer() -> None:
    lowering = lower("FROM base\nWORKDIR /\nWORKDIR a\nUSER u\nWORKDIR b/../c/\nRUN x\n")
    made = [node.definition for node in lowering.graph if isinstance(node.definition, MakeDirectory)]
    assert made == [MakeDirectory("/a", ""), MakeDirectory("/a/c", "u")]
    assert runs(lowering)[0].cwd == "/a/c"


def test_shell_forms_use_the_shell_in_force() -> None:
    lowering = lower('FROM base\nRUN a\nSHELL ["/bin/ash", "-ec"]\nRUN b\nRUN ["c", "$HOME"]\nCMD d\nHEALTHCHECK CMD e\n')
    assert [run.argv for run in runs(lowering)] == [("/bin/sh", "-c", "a"), ("/bin/ash", "-ec", "b"), ("c", "$HOME")]
    config = config_of(lowering)
    assert config.cmd == ("/bin/ash", "-ec", "d")
    assert config.shell == ("/bin/ash", "-ec")
    assert config.healthcheck is not None
    assert config.healthcheck.test == ("CMD-SHELL", "e")


def test_variables_in_run_are_left_to_the_shell_and_in_copy_are_not() -> None:
    lowering = lower("FROM base\nARG A=1\nRUN echo $A\nCOPY $A.txt /${A}/\n")
    assert runs(lowering)[0].argv[-1] == "echo $A"
    (copy,) = [node.definition for node in lowering.graph if isinstance(node.definition, Copy)]
    assert (copy.sources, copy.destination) == ((Pattern(1, "1.txt"),), "/1/")


def test_a_source_that_is_taken_from_twice_is_one_input() -> None:
    lowering = lower("FROM base AS one\nFROM base\nRUN --mount=from=one,target=/a --mount=from=one,target=/b --mount=target=/c x\n")
    node = next(node for node in lowering.graph if node.kind == "run")
    assert node.inputs == ("image:base", "one", "context")
    assert [mount.input for mount in runs(lowering)[0].mounts] == [1, 1, 2]


# errors


def test_a_registry_that_fails_is_told_with_the_line() -> None:
    class Down(World):
        def image(self, name: str, platform: Platform) -> object:  # type: ignore[override]
            raise RemoteError(f"cannot reach the registry of {name}")

    with pytest.raises(FailedAt, match="cannot reach") as raised:
        lower("FROM scratch\n\nCOPY --from=far:1 a b\n", Down())
    assert raised.value.span is not None
    assert raised.value.span.first_line == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY a $NOTHING", "destination is empty"),
        ("COPY --chmod=9 a b", "is no mode"),
        ("COPY --chmod=77777 a b", "beyond 7777"),
        ("USER $NOTHING", "USER is empty"),
        ("WORKDIR $NOTHING", "WORKDIR is empty"),
        ("VOLUME $NOTHING", "not empty|empty"),
        ("RUN --mount=type=tmpfs,target=/ x", "target cannot be /"),
        ("ENV A=${B:?must be given}", "must be given"),
        ("STOPSIGNAL SIGNOTHING", "SIGNOTHING"),
        ("EXPOSE 99999999", "99999999"),
    ],
)
def test_what_only_lowering_can_find_wrong_points_at_its_line(line: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as raised:
        lower(f"FROM base\n\n{line}\n")
    assert raised.value.span.first_line == 3


def test_the_graph_needs_no_order_of_the_file() -> None:
    """A stage that is needed late, and one that is needed twice, stand before their users, once."""
    lowering = lower("FROM base AS a\nRUN a\nFROM base AS b\nRUN b\nFROM base\nCOPY --from=b x y\nCOPY --from=a x y\nCOPY --from=b x z\n")
    ids = [node.id for node in lowering.graph]
    assert len(ids) == len(set(ids))
    assert lowering.graph[lowering.graph.target].kind == "stage"
    assert config_of(lowering).platform == AMD64
