"""Lowering: the image's config and history."""

from __future__ import annotations

import pytest

from cache.image_config import DEFAULT_PATH
from tests.compiler.graphs import config_of, history_of, image, lower

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
