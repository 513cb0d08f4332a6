"""Why a step will run, said from what its key was made of then and now."""

from __future__ import annotations

from typing import Any

import pytest

from cache import encoding
from compiler.reasons import Reason, explain_miss
from worker.operation import Copy, Pattern, Run, key_form

RUN = Run(("sh", "-c", "x"), (("A", "1"), ("B", "2")), "/", "", "default", "host")
COPY = Copy((Pattern(1, "a"),), "/b")


def parts(operation: Any = RUN, **more: Any) -> dict[str, Any]:
    """As a record gives them back."""
    found = {"operation": key_form(operation), "platform": "linux/amd64", "rootfs": "r", "sources": ["s"], **more}
    read: dict[str, Any] = encoding.parse(encoding.canonical(found))
    return read


@pytest.mark.parametrize(
    ("now", "reason", "text"),
    [
        (parts(platform="linux/arm64"), Reason.PLATFORM_CHANGED, "linux/amd64"),
        (parts(COPY), Reason.OPERATION_CHANGED, "another instruction"),
        (parts(RUN._replace(argv=("y",))), Reason.COMMAND_CHANGED, "command"),
        (parts(RUN._replace(argv=("y",), env=())), Reason.COMMAND_CHANGED, "command"),
        (parts(RUN._replace(env=(("A", "1"), ("B", "3")))), Reason.VARIABLES_CHANGED, "of B changed"),
        (parts(RUN._replace(env=(("C", "1"), ("B", "2")))), Reason.VARIABLES_CHANGED, "of A, C changed"),
        (parts(RUN._replace(cwd="/x", user="u")), Reason.OPERATION_CHANGED, "cwd, user"),
        (parts(sources=["t"]), Reason.FILES_CHANGED, "files"),
        (parts(rootfs="q"), Reason.BASE_CHANGED, "builds on"),
        (parts(), Reason.GONE, "no longer in the store"),
    ],
)
def test_the_first_difference_that_explains_it(now: dict[str, Any], reason: Reason, text: str) -> None:
    explained = explain_miss(now, parts())
    assert explained.reason is reason
    assert text in explained.text


def test_a_step_that_was_never_built() -> None:
    assert explain_miss(parts(), None).reason is Reason.NEVER_BUILT


def test_a_record_of_an_older_program_that_knew_fewer_fields() -> None:
    before = parts()
    del before["operation"]["ulimits"]
    assert explain_miss(parts(), before).reason is Reason.OPERATION_CHANGED


def test_values_of_variables_are_not_in_the_text() -> None:
    """A build argument may be more private than its name."""
    explained = explain_miss(parts(RUN._replace(env=(("A", "new-value"),))), parts(RUN._replace(env=(("A", "old-value"),))))
    assert "value" not in explained.text.replace("the value of", "")


def test_the_words_are_stable() -> None:
    """They stand in the JSON of `plan`."""
    assert {reason.value for reason in Reason} >= {
        "same-recipe", "same-content", "source", "not-needed", "never-built", "no-cache", "command-changed", "variables-changed",
        "operation-changed", "files-changed", "base-changed", "platform-changed", "gone", "input-open",
    }  # fmt: skip
