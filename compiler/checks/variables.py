"""Variables: what is known of ARG and ENV at one place of a Dockerfile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.dockerfile import instructions as ast
from compiler.dockerfile.expand import ExpansionError, expand, expand_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_GUARDED = r"\$\{(\w+):?[-+?]"
"""A variable whose absence the text itself provides for."""


class Variables:
    """Immutable.

    values: of all that have one. declared: names, also of ARGs without a value. complete: nothing else can be set,
    because the base image is known too. build_args: what the command line gives.
    """

    __slots__ = ("_above", "build_args", "complete", "declared", "escape", "values")

    def __init__(
        self, above: Variables | None, values: Mapping[str, str], declared: frozenset[str], complete: bool = True
    ) -> None:
        """above: what an ARG without a default takes its value from."""
        self._above = above
        self.values = values
        self.declared = declared
        self.complete = complete
        self.build_args: Mapping[str, str] = above.build_args if above else {}
        self.escape: str = above.escape if above else "\\"

    @classmethod
    def of_globals(
        cls, predefined: Mapping[str, str], build_args: Mapping[str, str], args: Iterable[ast.Arg], escape: str
    ) -> Variables:
        """What FROM sees: `predefined` platform arguments and the ARGs above the first stage."""
        values = {**predefined, **{name: value for name, value in build_args.items() if name in predefined}}
        made = cls(None, values, frozenset(predefined))
        made.build_args = build_args
        made.escape = escape
        for instruction in args:
            made = made.following(instruction)
        return made

    def with_env(self, env: Mapping[str, str]) -> Variables:
        return self._changed({**self.values, **env}, self.declared | env.keys())

    def on_unknown(self) -> Variables:
        """The same on a base image of which nothing is known: whatever is not set here may be set there."""
        return Variables(self._above, self.values, self.declared, False)

    def following(self, instruction: ast.Arg | ast.Env) -> Variables:
        """After this instruction. A value that cannot be expanded is left empty: the build will say why."""
        values = dict(self.values)
        names: list[str] = []
        if isinstance(instruction, ast.Env):
            for pair in instruction.pairs:
                name = self.expand(pair.key)
                values[name] = self.expand(pair.value)
                names.append(name)
            return self._changed(values, self.declared.union(names))
        for name, default, _ in instruction.args:
            names.append(name)
            if name in self.build_args:
                values[name] = self.build_args[name]
            elif default is not None:
                values[name] = self.expand(default)
            elif self._above is not None and name in self._above.values:
                values[name] = self._above.values[name]
        return self._changed(values, self.declared.union(names))

    def _changed(self, values: Mapping[str, str], declared: frozenset[str]) -> Variables:
        made = Variables(self._above, values, declared, self.complete)
        made.build_args, made.escape = self.build_args, self.escape
        return made

    def expand(self, text: str) -> str:
        """The text with variables replaced, `""` where it cannot be expanded."""
        try:
            return expand(text, self.values.get, self.escape)
        except ExpansionError:
            return ""

    def unknown_in(self, text: str, *, raw: bool = False) -> list[str]:
        """Names in the text that no ARG or ENV above it declares, each once, those left out that have a default.

        raw: the text is a heredoc's body, in which quotes mean nothing.
        """
        if "$" not in text:
            return []
        missing: dict[str, None] = {}

        def seen(name: str, found: bool) -> None:
            if not found and name not in self.declared and (name[0].isalpha() or name[0] == "_"):
                missing[name] = None

        try:
            (expand_raw if raw else expand)(text, self.values.get, self.escape, seen=seen)
        except ExpansionError:
            return []
        if missing:
            import re

            for name in re.findall(_GUARDED, text):
                missing.pop(name, None)
        return list(missing)

    @property
    def global_names(self) -> frozenset[str]:
        """Names that an ARG could bring in from above the first stage."""
        return self._above.declared if self._above else frozenset()
