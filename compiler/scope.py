"""Scope: the variables that an instruction sees, from ARG, ENV and the build itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.expand import ExpansionError, expand, expand_raw, expand_words

if TYPE_CHECKING:
    from cache.platform import Platform
    from compiler.dockerfile.instructions import Arg
    from compiler.dockerfile.source import Span

PROXIES = frozenset(
    name
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (proxy, proxy.lower())
)
"""Arguments that every RUN gets without ARG, and that no key and no history counts unless they are declared."""


def platform_arguments(target: Platform, build: Platform, stage: str) -> dict[str, str]:
    """The arguments that are predefined in the global scope; a stage that declares one sees it too."""
    found = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}OSVERSION"] = platform.os_version
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


class GlobalScope:
    """What FROM sees: the arguments above the first stage, and the predefined ones."""

    def __init__(self, predefined: dict[str, str], build_args: dict[str, str], escape: str) -> None:
        self.build_args = build_args
        self.escape = escape
        self.values: dict[str, str] = {**predefined, **{k: v for k, v in build_args.items() if k in predefined}}

    def declare(self, instruction: Arg) -> None:
        """ARG above the first FROM."""
        for name, default, _ in instruction.args:
            if name in self.build_args:
                self.values[name] = self.build_args[name]
            elif default is not None:
                self.values[name] = self.expand(default, instruction.span)

    def expand(self, text: str, span: Span) -> str:
        """Raises DockerfileError."""
        return expand_at(text, self.values, self.escape, span)


class StageScope:
    """What the instructions of one stage see.

    env: what the image's ENV holds, in order. args: arguments that were declared and have a value. ARG and ENV share
    one set of names at build time, in which the later one wins; the image only gets ENV (BuildKit's rule).
    """

    def __init__(self, above: GlobalScope, env: dict[str, str], args: dict[str, str]) -> None:
        self._above = above
        self.env = dict(env)
        self.args = dict(args)
        self._visible = {**env, **args}

    def copy_env(self, name: str, value: str) -> None:
        """ENV."""
        self.env[name] = value
        self._visible[name] = value

    def declare(self, instruction: Arg) -> list[tuple[str, str | None]]:
        """ARG: a value from the command line, else its default, else what the global scope has. The declared pairs."""
        declared: list[tuple[str, str | None]] = []
        before = dict(self._visible)
        for name, default, _ in instruction.args:
            value: str | None
            if name in self._above.build_args:
                value = self._above.build_args[name]
            elif default is not None:
                value = expand_at(default, before, self._above.escape, instruction.span)
            else:
                value = self._above.values.get(name)
            declared.append((name, value))
            if value is not None:
                self.args[name] = value
                self._visible[name] = value
        return declared

    @property
    def visible(self) -> dict[str, str]:
        """Name → value as a RUN gets them."""
        return dict(self._visible)

    def expand(self, text: str, span: Span) -> str:
        """One word: variables replaced, quotes removed. Raises DockerfileError."""
        return expand_at(text, self._visible, self._above.escape, span)

    def expand_raw(self, text: str, span: Span) -> str:
        """A heredoc's body: variables replaced, quotes kept. Raises DockerfileError."""
        try:
            return expand_raw(text, self._visible.get, self._above.escape)
        except ExpansionError as error:
            raise DockerfileError(str(error), span) from None

    def expand_words(self, text: str, span: Span) -> list[str]:
        """Several words. Raises DockerfileError."""
        try:
            return expand_words(text, self._visible.get, self._above.escape)
        except ExpansionError as error:
            raise DockerfileError(str(error), span) from None

    def build_argument(self, name: str) -> str:
        """A value of --build-arg that needs no ARG, "" if it was not given."""
        return self._above.build_args.get(name, "")

    def proxies(self) -> dict[str, str]:
        """Proxy variables of the command line that this stage did not declare itself."""
        given = self._above.build_args
        return {name: given[name] for name in sorted(given) if name in PROXIES and name not in self.args}


def expand_at(text: str, values: dict[str, str], escape: str, span: Span) -> str:
    """`expand`, with an error that points at the place."""
    try:
        return expand(text, values.get, escape)
    except ExpansionError as error:
        raise DockerfileError(str(error), span) from None
