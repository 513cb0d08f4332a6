"""Lowering: what ARG, ENV and proxies are where, and what of them reaches the image."""

from __future__ import annotations

import pytest

from cache.platform import Platform
from compiler.dockerfile.errors import DockerfileError
from compiler.graph import ImageSource
from tests.compiler.graphs import World, config_of, env_of, image, lower, runs

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
