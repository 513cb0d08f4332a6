"""Action: an operation whose inputs are all known by content."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cache.digest import Digest
    from cache.result import Layer
    from worker.operation import Mount, Operation
    from worker.tree import Tree


def _ignore(_: str) -> None:
    return


def _ignore_kill(_: Callable[[], None]) -> None:
    return


def _stay_cold(_: Mount, __: str) -> bool:
    return False


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
    cancelled: true once nobody wants the result any more. retry: how many more times a command that fails is tried.
    timeout: seconds that each try may take, None for any time. live: is told the file that the log can be followed in.
    shown: a text of the operation without the secrets in it, for what is written beside results. begun: is told how
    to kill the program, each time that one is started; `cancelled` is to be true before. warm: fills a cache mount that
    is made now, an empty directory, with what it held elsewhere; whether it did. within: of a store that serves
    several who do not trust each other, whose this is: what others made before does not count; "" for a user's own.
    """

    secrets: Mapping[str, bytes]
    agents: Mapping[str, str]
    proxies: Mapping[str, str]
    show: Callable[[str], None]
    cancelled: Callable[[], bool]
    retry: int = 0
    timeout: float | None = None
    live: Callable[[str], None] = _ignore
    shown: Callable[[str], str] = str
    begun: Callable[[Callable[[], None]], None] = _ignore_kill
    warm: Callable[[Mount, str], bool] = _stay_cold
    within: str = ""


class Cancelled(Exception):
    """The build stopped while this action waited or ran; never shown."""


class CommandFailed(StepFailed):
    """A RUN's program ended with a failure. exit_status: its exit code, or minus the signal that killed it. log: of all
    that it printed, in the store; None for nothing. disk_full: whether there was no space left when it ended."""

    log: Digest | None = None
    disk_full = False

    def __init__(self, exit_status: int, tail: list[str]) -> None:
        if exit_status < 0:
            super().__init__(f"the command was killed by signal {-exit_status}")
        else:
            super().__init__(f"the command ended with exit code {exit_status}")
        self.exit_status = exit_status
        self.tail = tail


class TimedOut(CommandFailed):
    """A RUN's program was killed because it took too long. seconds: what it was allowed."""

    def __init__(self, seconds: float, tail: list[str]) -> None:
        super().__init__(-signal.SIGKILL, tail)
        self.message = f"the command ran longer than {spelled(seconds, ' ')} (timeout={spelled(seconds)})"
        self.args = (self.message,)
        self.seconds = seconds


def spelled(seconds: float, blank: str = "") -> str:
    """A duration as people write it, to the millisecond: `1h30m`; with a blank `1 h 30 min`."""
    minute = "min" if blank else "m"
    whole, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), (minute, 60)):
        if whole >= size:
            parts.append(f"{whole // size}{blank}{unit}")
            whole %= size
    rest = round(whole + seconds % 1, 3)
    if rest or not parts:
        parts.append(f"{rest:g}{blank}s")
    return blank.join(parts)
