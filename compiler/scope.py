"""Scope: the variables that an instruction sees, from ARG, ENV and the build itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.expand import ExpansionError, expand, expand_raw, expand_words
from compiler.secret_values import SecretValues
from worker.proxies import PROXIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.platform import Platform
    from compiler.dockerfile.instructions import Arg
    from compiler.dockerfile.source import Span


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

    def __init__(
        self, predefined: dict[str, str], build_args: dict[str, str], escape: str, secrets: SecretValues | None = None
    ) -> None:
        """secrets: where the values of variables with secret names are noted."""
        self.build_args = build_args
        self.escape = escape
        self.secrets = secrets or SecretValues()
        for name, value in build_args.items():
            self.secrets.note(name, value)
        self.values: dict[str, str] = {**predefined, **{k: v for k, v in build_args.items() if k in predefined}}

    def declare(self, instruction: Arg) -> None:
        """ARG above the first FROM."""
        for name, default, _ in instruction.args:
            if name in self.build_args:
                self.values[name] = self.build_args[name]
            elif default is not None:
                value, derived = expand_noted(expand, default, self.values, self, instruction.span)
                self.secrets.note(name, value, derived=derived)
                self.values[name] = value

    def expand(self, text: str, span: Span) -> str:
        """Raises DockerfileError."""
        return expand_noted(expand, text, self.values, self, span)[0]


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
        self.secrets = above.secrets
        for name, value in env.items():
            self.secrets.note(name, value)

    def copy_env(self, name: str, value: str, *, derived: bool = False) -> None:
        """ENV. derived: the value says something about a secret, see `expand_noted`."""
        self.secrets.note(name, value, derived=derived)
        self.env[name] = value
        self._visible[name] = value

    def declare(self, instruction: Arg) -> list[tuple[str, str | None]]:
        """ARG: a value from the command line, else its default, else what the global scope has. The declared pairs."""
        declared: list[tuple[str, str | None]] = []
        before = dict(self._visible)
        for name, default, _ in instruction.args:
            value: str | None
            derived = False
            if name in self._above.build_args:
                value = self._above.build_args[name]
            elif default is not None:
                value, derived = expand_noted(expand, default, before, self._above, instruction.span)
            else:
                value = self._above.values.get(name)
            declared.append((name, value))
            if value is not None:
                self.secrets.note(name, value, derived=derived)
                self.args[name] = value
                self._visible[name] = value
        return declared

    @property
    def visible(self) -> dict[str, str]:
        """Name → value as a RUN gets them."""
        return dict(self._visible)

    def expand(self, text: str, span: Span) -> str:
        """One word: variables replaced, quotes removed. Raises DockerfileError."""
        return self.expand_noted(text, span)[0]

    def expand_noted(self, text: str, span: Span) -> tuple[str, bool]:
        """The same, and whether it says something about a secret."""
        return expand_noted(expand, text, self._visible, self._above, span)

    def expand_raw(self, text: str, span: Span) -> str:
        """A heredoc's body: variables replaced, quotes kept. Raises DockerfileError."""
        return expand_noted(expand_raw, text, self._visible, self._above, span)[0]

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


def expand_noted(
    how: Callable[..., str], text: str, values: dict[str, str], above: GlobalScope, span: Span
) -> tuple[str, bool]:
    """`expand` or `expand_raw`, and whether the result says something about a secret. Raises DockerfileError."""
    try:
        result = how(text, values.get, above.escape)
        again = partial(_again, how, above.escape)
        return result, above.secrets.note_expanded(text, result, values, again)
    except ExpansionError as error:
        raise DockerfileError(str(error), span) from None


def _again(how: Callable[..., str], escape: str, text: str, values: dict[str, str]) -> str:
    """A part of the text may be none by itself: "" then."""
    try:
        return how(text, values.get, escape)
    except ExpansionError:
        return ""
