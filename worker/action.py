"""Action: an operation whose inputs are all known by content."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.errors import StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cache.result import Layer
    from worker.operation import Operation
    from worker.tree import Tree


class Action(NamedTuple):
    """What is executed. key: the content key, under which its result is kept. inputs: as the operation numbers them;
    number 0 is the root filesystem that the step works on. platform: `linux/amd64`, "" for this machine's."""

    key: str
    operation: Operation
    inputs: tuple[tuple[Layer, ...] | Tree, ...]
    platform: str = ""

    @property
    def rootfs(self) -> tuple[Layer, ...]:
        """The layers that the step works on."""
        first = self.inputs[0]
        assert isinstance(first, tuple)
        return first


class Order(NamedTuple):
    """How to execute, beside what: none of it is in a key.

    secrets: id → value. agents: id → socket of an ssh agent. proxies: variables that a RUN sees unless it declares
    them. show: gets each line of output.
    cancelled: true once nobody wants the result any more.
    """

    secrets: Mapping[str, bytes]
    agents: Mapping[str, str]
    proxies: Mapping[str, str]
    show: Callable[[str], None]
    cancelled: Callable[[], bool]


class Cancelled(Exception):
    """The build stopped while this action waited or ran; never shown."""


class CommandFailed(StepFailed):
    """A RUN's program ended with a failure. exit_status: its exit code, or minus the signal that killed it."""

    def __init__(self, exit_status: int, tail: list[str]) -> None:
        if exit_status < 0:
            super().__init__(f"the command was killed by signal {-exit_status}")
        else:
            super().__init__(f"the command ended with exit code {exit_status}")
        self.exit_status = exit_status
        self.tail = tail
