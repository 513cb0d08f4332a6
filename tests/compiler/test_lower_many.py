"""Lowering: thousands of stages, more layers than can be mounted, and numbers that are none."""

from __future__ import annotations

import time

import pytest

from compiler.dockerfile.errors import DockerfileError
from compiler.keys import Keys
from compiler.plan import Plan
from tests.compiler.graphs import World, config_of, lower

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


@pytest.mark.alone
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
