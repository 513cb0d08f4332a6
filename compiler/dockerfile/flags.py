"""Flags: the `--name[=value]` words of one instruction, checked against those that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.dockerfile.errors import DockerfileError, did_you_mean

if TYPE_CHECKING:
    from compiler.dockerfile.lexer import RawInstruction


class Flags:
    """The flags of one instruction by kind: with one text, with a text each time, and on or off.

    DockerfileError for an unknown flag, a second one that is no list, a missing value, a switch that is neither true
    nor false.
    """

    __slots__ = ("_lists", "_switches", "_texts")

    def __init__(
        self,
        raw: RawInstruction,
        *,
        texts: tuple[str, ...] = (),
        lists: tuple[str, ...] = (),
        switches: tuple[str, ...] = (),
    ) -> None:
        self._texts: dict[str, str] = {}
        self._lists: dict[str, tuple[str, ...]] = {}
        self._switches: dict[str, bool] = {}
        for flag in raw.flags:
            name, equals, value = flag[2:].partition("=")
            problem = ""
            if name in self._texts or name in self._switches:
                problem = f"--{name} is given twice"
            elif name in switches:
                if equals and value.lower() not in ("true", "false"):
                    problem = f"--{name} is true or false, not {value!r}"
                self._switches[name] = value.lower() != "false"
            elif name not in texts and name not in lists:
                known = (*texts, *lists, *switches)
                problem = f"unknown flag --{name}{did_you_mean(f'--{name}', [f'--{each}' for each in known])}"
            elif not equals:
                problem = f"--{name} needs a value"
            elif name in texts:
                self._texts[name] = value
            else:
                self._lists[name] = (*self._lists.get(name, ()), value)
            if problem:
                raise DockerfileError(problem, raw.span.find(f"--{name}"))

    def text(self, name: str, default: str = "") -> str:
        return self._texts.get(name, default)

    def list(self, name: str) -> tuple[str, ...]:
        return self._lists.get(name, ())

    def switch(self, name: str) -> bool | None:
        """True, False, or None where the flag is absent."""
        return self._switches.get(name)
