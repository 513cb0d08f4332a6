"""Policy comments: what they mean, where they may stand, and where each mistake is pointed at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.instructions import Add, Copy, Instruction, OnBuild, Run, Workdir
from compiler.dockerfile.parser import parse_dockerfile, parse_trigger
from compiler.dockerfile.policy import MAX_SECONDS, NO_POLICY, WORDS_HINT, Policy
from compiler.dockerfile.source import Source
from tests.dockerfile.policies import written


def parse(text: str) -> tuple[Instruction, ...]:
    return parse_dockerfile(Source("Dockerfile", text)).stages[0].instructions


def policy(comment: str, instruction: str = "RUN x") -> Policy:
    (step,) = parse(f"FROM a\n{comment}\n{instruction}\n")
    assert isinstance(step, Run | Copy | Add | Workdir)
    return step.policy


def refusal(text: str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# no policy", NO_POLICY),
        ("# buildgraph does this", NO_POLICY),
        ("# buildgraph: no-cache", Policy(no_cache=True)),
        ("#buildgraph:no-cache", Policy(no_cache=True)),
        ("  #\t BuildGraph:  no-cache ,,\t", Policy(no_cache=True)),
        ("# buildgraph: no-cache\r", Policy(no_cache=True)),
        ("# buildgraph: ttl=24h", Policy(ttl=86400.0)),
        ("# buildgraph: ttl=7d", Policy(ttl=7 * 86400.0)),
        ("# buildgraph: ttl=1d1h30m", Policy(ttl=86400.0 + 5400)),
        ("# buildgraph: ttl=3650d", Policy(ttl=float(MAX_SECONDS))),
        ("# buildgraph: timeout=90s", Policy(timeout=90.0)),
        ("# buildgraph: timeout=0.5s", Policy(timeout=0.5)),
        ("# buildgraph: retry=1 timeout=3s", Policy(retry=1, timeout=3.0)),
        ("# buildgraph: retry=10,ttl=1s", Policy(retry=10, ttl=1.0)),
        ("# buildgraph: secret-in-key=3, retry=3", Policy(retry=3, secret_in_key=("3",))),
        ("# buildgraph: secret-in-key=b\n# buildgraph: secret-in-key=a", Policy(secret_in_key=("b", "a"))),
        ("# buildgraph: memory=4GB retry=1", Policy(retry=1, memory=4 << 30)),
        ("# buildgraph: label=gpu=a100,label=zone=", Policy(labels=(("gpu", "a100"), ("zone", "")))),
        ("# buildgraph: retry=2\n#\n# why: it is flaky\n#buildgraph: timeout=1m", Policy(retry=2, timeout=60.0)),
    ],
)
def test_what_a_comment_means(comment: str, expected: Policy) -> None:
    assert policy(comment) == expected


@pytest.mark.parametrize("instruction", ["COPY a b", "ADD a b", "WORKDIR /w", "COPY <<E /f\n# buildgraph: text\nE"])
def test_steps_without_a_command_can_expire(instruction: str) -> None:
    assert policy("# buildgraph: ttl=1h no-cache", instruction) == Policy(no_cache=True, ttl=3600.0)


def test_a_policy_is_about_the_next_step_alone() -> None:
    first, second, third = parse("FROM a\nRUN one\n# buildgraph: no-cache\nRUN two\nRUN three\n")
    assert [step.policy for step in (first, second, third)] == [NO_POLICY, Policy(no_cache=True), NO_POLICY]  # type: ignore[union-attr]


def test_parser_directives_may_stand_above_and_a_heredoc_holds_what_it_likes() -> None:
    text = "# syntax=x/y\n# escape=`\nFROM a\n# buildgraph: retry=1\nRUN <<E\n# buildgraph: anything\n\nE\n"
    (run,) = parse(text)
    assert isinstance(run, Run)
    assert run.policy == Policy(retry=1)
    assert run.heredocs[0].body == "# buildgraph: anything\n\n"
    assert run.text == "RUN <<E"


def test_a_base_image_has_no_say() -> None:
    trigger = parse_trigger("# buildgraph: nonsense\nRUN x", "ONBUILD of a")
    assert isinstance(trigger, Run)
    assert trigger.policy == NO_POLICY
    (onbuild,) = parse("FROM a\nONBUILD RUN x\n")
    assert isinstance(onbuild, OnBuild)
    assert onbuild.instruction.policy == NO_POLICY  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "column", "length", "message", "hinted"),
    [
        ("nocache", 15, 7, "unknown policy nocache, did you mean no-cache?", True),
        ("No-Cache", 15, 8, "unknown policy No-Cache, did you mean no-cache?", True),
        ("no-cache  retries=3", 25, 9, "unknown policy retries, did you mean retry?", True),
        ("ttl=1h because it moves", 22, 7, "unknown policy because", True),
        ("=", 15, 1, "unknown policy =", True),
        ("ttl", 15, 3, "ttl needs a value, as in ttl=24h", False),
        ("retry=", 15, 6, "retry: nothing is no number from 1 to 10", True),
        ("no-cache=yes", 15, 12, "no-cache takes no value", False),
        ("retry=0", 15, 7, "retry: 0 is no number from 1 to 10", True),
        ("retry=11", 15, 8, "retry: 11 is no number from 1 to 10", True),
        ("retry=-1", 15, 8, "retry: -1 is no number from 1 to 10", True),
        ("retry=²", 15, 7, "retry: ² is no number from 1 to 10", True),
        ("ttl=1h,timeout=10", 22, 10, "timeout: 10 is no duration such as 90s, 10m, 1h30m or 7d", True),
        ("timeout=0s", 15, 10, "timeout: 0s is not above zero and at most 3650d", True),
        ("timeout=-1s", 15, 11, "timeout: -1s is no duration such as 90s, 10m, 1h30m or 7d", True),
        ("ttl=1d-1h", 15, 9, "ttl: 1d-1h is no duration such as 90s, 10m, 1h30m or 7d", True),
        ("ttl=3651d", 15, 9, "ttl: 3651d is not above zero and at most 3650d", True),
        ("ttl=999999999999h", 15, 17, "ttl: 999999999999h is no duration such as 90s, 10m, 1h30m or 7d", True),
        ("ttl=1h ttl=2h", 22, 6, "ttl is given twice", False),
        ("no-cache no-cache", 24, 8, "no-cache is given twice", False),
        ("secret-in-key=a,secret-in-key=a", 31, 15, "secret-in-key=a is given twice", False),
        ("secret-in-key=", 15, 14, "secret-in-key: nothing is no id of a secret", True),
        ("memory=lots", 15, 11, "memory: lots is no size such as 512MB or 4GB, of at most 1024TB", True),
        ("memory=0", 15, 8, "memory: 0 is no size such as 512MB or 4GB, of at most 1024TB", True),
        ("memory=20%", 15, 10, "memory: 20% is no size such as 512MB or 4GB, of at most 1024TB", True),
        ("memory=1025TB", 15, 13, "memory: 1025TB is no size such as 512MB or 4GB, of at most 1024TB", True),
        ("memory=1g memory=2g", 25, 9, "memory is given twice", False),
        ("label=gpu", 15, 9, "label: 'gpu' is not of the form NAME=VALUE", True),
        ("label=namespace:x=execute", 15, 25, "label: 'namespace:x=execute' is not of the form NAME=VALUE", True),
        ("label=a=1 label=a=2", 25, 9, "label: a is given twice", True),
        (" ".join(f"label=n{at:02}=" for at in range(17)), 191, 10, "label: a step asks for 16 labels at most", True),
        ("", 1, 13, "the policy comment says nothing", True),
    ],
)
def test_a_mistake_is_pointed_at(words: str, column: int, length: int, message: str, hinted: bool) -> None:
    error = refusal(f"FROM a\n# buildgraph: {words}\nRUN x\n")
    assert error.message == message
    assert error.span[1:5] == (2, column, 2, column + length - 1)
    assert error.hint == (WORDS_HINT if hinted else "")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("# buildgraph: no-cache\nFROM a\n", 1, "stands above FROM"),
        ("FROM a\n# buildgraph: ttl=1h\nENV a=b\n", 2, "stands above ENV"),
        ("FROM a\n# buildgraph: ttl=1h\nONBUILD RUN x\n", 2, "stands above ONBUILD"),
        ("FROM a\n# buildgraph: ttl=1h\n\nRUN x\n", 2, "a blank line follows"),
        ("FROM a\n# buildgraph: ttl=1h\n# more\n \t \nRUN x\n", 2, "a blank line follows"),
        ("FROM a\nRUN x\n# buildgraph: ttl=1h", 3, "no instruction follows"),
        ("FROM a\nRUN x \\\n  # buildgraph: ttl=1h\n  y\n", 3, "inside of an instruction"),
        ("FROM a\n# buildgraph: ttl=1h\nRUN x \\\n# buildgraph: retry=1\n  y\n", 4, "inside of an instruction"),
        ("FROM a\n# buildgraph: retry=2\nCOPY a b\n", 2, "retry applies to RUN only, not to COPY"),
        ("FROM a\n# buildgraph: timeout=2s\nADD a b\n", 2, "timeout applies to RUN only, not to ADD"),
        ("FROM a\n# buildgraph: secret-in-key=a\nWORKDIR /\n", 2, "secret-in-key applies to RUN only, not to WORKDIR"),
        ("FROM a\n# buildgraph: memory=1g\nCOPY a b\n", 2, "memory applies to RUN only, not to COPY"),
        ("FROM a\n# buildgraph: label=a=b\nCOPY a b\n", 2, "label applies to RUN only, not to COPY"),
        ("FROM a\n# buildgraph: ttl=1h\n#\n# buildgraph: ttl=2h\nRUN x\n", 4, "ttl is given twice"),
    ],
)
def test_a_policy_that_would_do_nothing_is_an_error(text: str, line: int, message: str) -> None:
    error = refusal(text)
    assert message in error.message
    assert error.span.first_line == line
    if "applies to RUN only" in message:
        assert error.hint.endswith("it may be no-cache, ttl=24h")


WORDS = st.fixed_dictionaries(
    {},
    optional={
        "no_cache": st.just(True),
        "ttl": st.integers(1, MAX_SECONDS).map(float),
        "retry": st.integers(1, 10),
        "timeout": st.integers(1, MAX_SECONDS).map(float),
        "secret_in_key": st.lists(st.from_regex(r"[a-zA-Z0-9_.-]{1,9}", fullmatch=True), unique=True, min_size=1).map(tuple),
        "memory": st.integers(1, 1 << 40).map(lambda size: size << 10),
        "labels": st.dictionaries(
            st.from_regex(r"[a-zA-Z0-9_.-]{1,9}", fullmatch=True), st.from_regex(r"[a-z0-9=]{0,9}", fullmatch=True),
            min_size=1, max_size=4,
        ).map(lambda labels: tuple(labels.items())),
    },
)


@given(WORDS.filter(bool), st.data())
def test_whatever_is_written_is_read(fields: dict[str, object], data: st.DataObject) -> None:
    """In any order of the words but the secrets', over any number of lines."""
    wanted = Policy(**fields)  # type: ignore[arg-type]
    lines, words = [], ""
    for word in written(wanted):
        words += data.draw(st.sampled_from([" ", ",", "\t", ", "])) + word
        if data.draw(st.booleans()):
            lines.append(f"# buildgraph:{words}")
            words = ""
    if words:
        lines.append(f"#Buildgraph:{words}")
    assert policy("\n".join(lines)) == wanted


@given(st.text(max_size=40))
def test_any_text_is_a_policy_or_an_error_with_its_place(text: str) -> None:
    line = "# buildgraph: " + text.replace("\n", " ")
    try:
        found = policy(line)
    except DockerfileError as error:
        place = error.span
    else:
        place = None
        assert found != NO_POLICY
    assert place is None or (place.first_line == place.last_line == 2 and place.last_column <= len(line))
