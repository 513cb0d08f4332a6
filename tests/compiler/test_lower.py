"""From the text of a Dockerfile to its graph: variables, stages, images, history and config (reference 1.2 to 1.7)."""

from __future__ import annotations

import time

import pytest

from cache.errors import RemoteError
from cache.image_config import DEFAULT_PATH, ImageConfig
from cache.platform import Platform
from compiler.dockerfile.errors import DockerfileError
from compiler.failure import FailedAt
from compiler.graph import ContextSource, ImageSource
from compiler.keys import Keys
from compiler.plan import Plan
from tests.compiler.graphs import AMD64, World, config_of, history_of, lower, made_image, runs
from worker.operation import Copy, MakeDirectory, Pattern


def env_of(text: str, world: World | None = None, **options: object) -> dict[str, str]:
    """What the last RUN sees, without PATH."""
    found = dict(runs(lower(text, world, **options))[-1].env)
    found.pop("PATH", None)
    return found


def image(*env: str, **fields: object) -> World:
    return World({"base": ImageConfig("amd64", "linux", env=env)._replace(**fields)})


# ARG and ENV


@pytest.mark.parametrize(
    ("body", "args", "expected"),
    [
        ("ARG A=1\nRUN x", {}, {"A": "1"}),
        ("ARG A=1\nRUN x", {"A": "2"}, {"A": "2"}),
        ("ARG A\nRUN x", {}, {}),
        ("ARG A\nRUN x", {"A": "2"}, {"A": "2"}),
        ("RUN x", {"A": "2"}, {}),
        ("ARG A=1\nENV A=env\nRUN x", {"A": "2"}, {"A": "env"}),
        ("ENV A=env\nARG A=arg\nRUN x", {}, {"A": "arg"}),
        ("ENV A=env\nARG A=arg\nRUN x", {"A": "2"}, {"A": "2"}),
        ("ENV A=env\nARG A\nRUN x", {}, {"A": "env"}),
        ("ARG A=1\nARG B=$A-b\nRUN x", {}, {"A": "1", "B": "1-b"}),
        ("ARG A=1 B=${A}b\nRUN x", {}, {"A": "1", "B": "b"}),
        ("ENV A=old\nENV A=new B=$A\nRUN x", {}, {"A": "new", "B": "old"}),
        ("ENV A=1\nENV B=${A:+set}${C:-unset}\nRUN x", {}, {"A": "1", "B": "setunset"}),
        ("ARG A=\nRUN x", {}, {"A": ""}),
        ("ARG A=1\nRUN first\nARG A=3\nRUN x", {}, {"A": "3"}),
    ],
)
def test_what_a_run_sees_of_args_and_env(body: str, args: dict[str, str], expected: dict[str, str]) -> None:
    assert env_of(f"FROM base\n{body}\n", build_args=tuple(args.items())) == expected


def test_an_arg_over_env_never_reaches_the_image() -> None:
    """BuildKit's rule: the later of the two wins for a RUN, the image has ENV alone."""
    lowering = lower("FROM base\nARG A=arg\nRUN x\n", image("A=env"))
    assert dict(runs(lowering)[0].env)["A"] == "arg"
    assert "A=env" in config_of(lowering).env


def test_args_are_inherited_by_a_stage_that_is_built_on_the_stage_only() -> None:
    text = "FROM base AS one\nARG A=1\nENV B=2\nRUN x\nFROM one\nRUN y\n"
    assert env_of(text) == {"A": "1", "B": "2"}
    assert env_of("FROM base AS one\nARG A=1\nFROM base\nRUN y\n") == {}


def test_an_arg_is_only_visible_below_its_line() -> None:
    lowering = lower("FROM base\nENV B=$A\nARG A=1\nENV C=$A\nRUN x\n")
    assert {k: v for k, v in runs(lowering)[0].env if k != "PATH"} == {"B": "", "C": "1", "A": "1"}


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("ARG A=1\nFROM base\nRUN x\n", {}, {}),
        ("ARG A=1\nFROM base\nARG A\nRUN x\n", {}, {"A": "1"}),
        ("ARG A=1\nFROM base\nARG A=2\nRUN x\n", {}, {"A": "2"}),
        ("ARG A=1\nFROM base\nARG A\nRUN x\n", {"A": "3"}, {"A": "3"}),
        ("ARG A=1\nARG B=$A$A\nFROM base\nARG B\nRUN x\n", {}, {"B": "11"}),
        ("ARG A=1\nFROM base AS one\nARG A=2\nFROM base\nARG A\nRUN x\n", {}, {"A": "1"}),
    ],
)
def test_global_args(text: str, args: dict[str, str], expected: dict[str, str]) -> None:
    assert env_of(text, build_args=tuple(args.items())) == expected


def test_only_global_args_name_a_base_image() -> None:
    world = World()
    lower("ARG TAG=3\nFROM base:${TAG} AS one\nARG TAG=4\nFROM base:$TAG\nCOPY --from=one a b\n", world)
    assert {name for name, _ in world.asked} == {"base:3"}
    with pytest.raises(DockerfileError, match="empty"):
        lower("FROM $NOTHING\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TARGETPLATFORM", "linux/arm/v7"), ("TARGETOS", "linux"), ("TARGETARCH", "arm"), ("TARGETVARIANT", "v7"),
        ("BUILDPLATFORM", str(Platform.here())), ("BUILDARCH", Platform.here().architecture), ("TARGETSTAGE", "default"),
    ],
)  # fmt: skip
def test_platform_args_are_there_for_who_declares_them(name: str, value: str) -> None:
    arm = Platform.parse("linux/arm/v7")
    assert env_of(f"FROM base\nARG {name}\nRUN x\n", platform=arm) == {name: value}
    assert env_of("FROM base\nRUN x\n", platform=arm) == {}
    assert env_of(f"FROM base\nARG {name}\nRUN x\n", build_args=((name, "mine"),)) == {name: "mine"}


def test_the_target_stage_is_an_arg() -> None:
    assert env_of("FROM base AS end\nARG TARGETSTAGE\nRUN x\n", target="end") == {"TARGETSTAGE": "end"}


def test_a_platform_of_from_is_asked_for() -> None:
    world = World()
    lower("FROM --platform=$BUILDPLATFORM tools AS t\nFROM base\nCOPY --from=t a b\n", world, platform=Platform.parse("linux/s390x"))
    assert world.asked == [("base", "linux/s390x"), ("tools", str(Platform.here()))] or set(world.asked) == {
        ("base", "linux/s390x"), ("tools", str(Platform.here()))
    }  # fmt: skip


def test_one_image_for_two_platforms_is_two_sources() -> None:
    text = "FROM --platform=linux/arm64 base AS tools\nRUN t\nFROM --platform=linux/amd64 base\nCOPY --from=tools a b\nCOPY --from=base c d\n"
    for platform in ("linux/amd64", "linux/arm64"):
        lowering = lower(text, platform=Platform.parse(platform))
        images = [node for node in lowering.graph if isinstance(node.definition, ImageSource)]
        assert len(images) == len({node.definition for node in images}) == 2


# proxies


def test_proxies_come_with_the_order_and_not_in_the_operation() -> None:
    args = (("http_proxy", "http://p:1"), ("NO_PROXY", "x"), ("OTHER", "1"))
    lowering = lower("FROM base\nRUN x\n", build_args=args)
    assert runs(lowering) == runs(lower("FROM base\nRUN x\n"))
    assert lowering.proxies == {"0.1": {"http_proxy": "http://p:1", "NO_PROXY": "x"}}


def test_a_declared_proxy_is_an_arg_as_any_other() -> None:
    lowering = lower("FROM base\nARG http_proxy\nRUN x\n", build_args=(("http_proxy", "http://p:1"),))
    assert dict(runs(lowering)[0].env)["http_proxy"] == "http://p:1"
    assert lowering.proxies == {"0.2": {}}


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


# config and history (reference 1.7, 20 to 24)


def test_an_image_without_a_path_gets_one() -> None:
    assert config_of(lower("FROM base\n")).env == (DEFAULT_PATH,)
    assert config_of(lower("FROM base\n", image("A=1", "PATH=/x"))).env == ("A=1", "PATH=/x")
    scratch = config_of(lower("FROM scratch\n"))
    assert (scratch.env, scratch.working_dir) == ((DEFAULT_PATH,), "/")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("ENTRYPOINT [\"e\"]", (("e",), ())),
        ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", (("e",), ("c",))),
        ("ENTRYPOINT [\"e\"]\nCMD [\"c\"]", (("e",), ("c",))),
        ("CMD []", (("base-e",), ())),
        ("ENTRYPOINT []", ((), ())),
    ],
)
def test_an_entrypoint_forgets_an_inherited_cmd(body: str, expected: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    config = config_of(lower(f"FROM base\n{body}\n", image(entrypoint=("base-e",), cmd=("base-c",))))
    assert (config.entrypoint, config.cmd) == expected


def test_labels_of_the_command_line_are_the_targets() -> None:
    lowering = lower("FROM base AS one\nLABEL a=1 b=1\nFROM one\nLABEL b=2\n", labels=(("c", "3"), ("a", "9")))
    assert config_of(lowering).labels == (("a", "9"), ("b", "2"), ("c", "3"))


HISTORY = [
    ("RUN make", "RUN /bin/sh -c make # buildkit"),
    ('RUN ["make", "it"]', "RUN make it # buildkit"),
    ("COPY a b /c/", "COPY a b /c/ # buildkit"),
    ("COPY --chown=1:2 --chmod=644 --link a /b", "COPY --chown=1:2 --chmod=644 --link a /b # buildkit"),
    ("ADD a /b", "ADD a /b # buildkit"),
    ("WORKDIR /a/../b/", "WORKDIR /b"),
    ("WORKDIR /", "WORKDIR /"),
    ("ENV A=1 B=two", "ENV A=1 B=two"),
    ("LABEL A=1", "LABEL A=1"),
    ("ARG A", "ARG A"),
    ("ARG A=1", "ARG A=1"),
    ('CMD ["nginx", "-g", "daemon off;"]', 'CMD ["nginx" "-g" "daemon off;"]'),
    ("CMD run it", 'CMD ["/bin/sh" "-c" "run it"]'),
    ('ENTRYPOINT ["e"]', 'ENTRYPOINT ["e"]'),
    ('SHELL ["/bin/sh", "-c"]', "SHELL [/bin/sh -c]"),
    ("EXPOSE 80 53/udp", "EXPOSE [53/udp 80/tcp]"),
    ("VOLUME /a /b", "VOLUME [/a /b]"),
    ("USER me", "USER me"),
    ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM"),
    ("MAINTAINER me", "MAINTAINER me"),
    ("HEALTHCHECK --interval=90s --retries=3 CMD x", 'HEALTHCHECK &{["CMD-SHELL" "x"] "1m30s" "0s" "0s" "0s" \'\\x03\'}'),
]


@pytest.mark.parametrize(("line", "expected"), HISTORY)
def test_a_line_of_history(line: str, expected: str) -> None:
    assert history_of(lower(f"FROM base\n{line}\n")) == [expected]


def test_declared_args_stand_before_a_run_in_the_history() -> None:
    text = "FROM base\nARG B=2\nARG A\nARG C\nRUN x\n"
    assert history_of(lower(text, build_args=(("A", "1"),)))[-1] == "RUN |3 B=2 A=1 C= /bin/sh -c x # buildkit"


def test_the_history_tells_layers_from_the_rest() -> None:
    lowering = lower("FROM base\nENV A=1\nRUN x\nWORKDIR /\nWORKDIR /w\nCOPY a b\n")
    output = lowering.graph[lowering.graph.target].definition
    assert [bool(item.node) for item in output.history] == [False, True, False, True, True]  # type: ignore[union-attr]


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


# many stages, many layers


def chain(form: str, count: int) -> str:
    """Stages that need one another, the last one all of them."""
    lines = ["FROM base AS s0", "COPY a /a"]
    for number in range(1, count):
        lines += form.format(number, number - 1).split("\n")
    return "\n".join(lines) + "\n"


CHAINS = {
    "FROM": "FROM s{1} AS s{0}\nRUN echo {0}",
    "FROM alone": "FROM s{1} AS s{0}",
    "COPY": "FROM scratch AS s{0}\nCOPY --from=s{1} /a /a",
    "COPY by number": "FROM scratch\nCOPY --from={1} /a /a",
    "mount": "FROM base AS s{0}\nRUN --mount=type=bind,from=s{1},target=/m echo {0}",
    "both": "FROM s{1} AS s{0}\nCOPY --from=s{1} /a /b",
}


@pytest.mark.parametrize("form", CHAINS)
def test_thousands_of_stages(form: str) -> None:
    count = 2000
    began = time.process_time()
    lowering = lower(chain(CHAINS[form], count), World())
    made = lowering.graph
    assert sum(node.kind == "stage" for node in made) == count
    keys = Keys(made, lambda _: None)
    for node in made:
        keys.recipe(node.id)
    plan = Plan(made, {}, {}, 2)
    assert plan.start()
    assert time.process_time() - began < 4, "it takes half a second; this bound only tells linear from quadratic"


def test_a_stage_is_lowered_where_it_is_first_asked_for() -> None:
    text = "FROM base AS a\nRUN 1\nFROM base AS b\nRUN 2\nFROM base AS never\nRUN 3\nFROM base\nRUN 4\nCOPY --from=b /x /\nRUN --mount=type=bind,from=a,target=/m 5\n"
    assert [node.id for node in lower(text).graph if node.is_step] == ["3.1", "b.1", "3.2", "a.1", "3.3"]


@pytest.mark.parametrize(("copies", "ok"), [(489, True), (490, False)])
def test_more_layers_than_can_be_mounted_are_refused_before_any_is_made(copies: int, ok: bool) -> None:
    """The base has one itself."""
    text = "FROM base AS s\n" + "COPY a /a\n" * (copies - 1) + "FROM s\nWORKDIR /x\nRUN true\nCOPY a /b\nRUN last\n"
    if ok:
        assert lower(text).graph
        return
    with pytest.raises(DockerfileError, match="this RUN stands on 491 layers, and no more than 490 can be mounted") as raised:
        lower(text)
    assert raised.value.span.first_line == copies + 5


def test_layers_that_no_command_needs_may_be_more() -> None:
    assert lower("FROM base\n" + "COPY a /a\n" * 600).graph
    assert lower("FROM base\n" + "RUN true\n" * 600).graph


@pytest.mark.parametrize("number", ["9" * 5000, "0" * 5000 + "7", "18446744073709551616"])
def test_numbers_of_stages_that_are_none(number: str) -> None:
    with pytest.raises(DockerfileError, match="there is no stage number"):
        lower(f"FROM base\nCOPY --from={number} /a /\n")
    with pytest.raises(DockerfileError, match=r"no stage .* as the target"):
        lower("FROM base\n", target=number)


def test_zeros_before_the_number_of_a_stage_mean_nothing() -> None:
    assert lower(f"FROM base\nRUN x\nFROM base\nCOPY --from={'0' * 5000} /a /\n").graph["1.1"].inputs[1] == "0"
    assert config_of(lower("FROM base\nENV A=1\nFROM base\n", target="0" * 30)).env[-1] == "A=1"
