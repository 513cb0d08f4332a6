"""SecretValues: what variables with secret names hold in one Dockerfile, and how it is kept out of what is written."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any, TypeVar

from compiler.failure import FailedAt
from compiler.secret_names import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cache.errors import BuildgraphError

    Mark = Callable[[str], str]
    Error = TypeVar("Error", bound=BuildgraphError)

MASK = "***"
"""Stands where a secret was. In records a mark follows, by which equal values are known; shorter than any value that is
looked for inside of texts, so that it never looks like one itself."""
MARK_DIGITS = 16
WITHIN = 6
"""Characters from which a value is looked for inside of longer texts; a shorter one would blot out ordinary words."""
_MARKED = rf"\*\*\*[0-9a-f]{{{MARK_DIGITS}}}"
_DONE = rf"\*\*\*(?:[0-9a-f]{{{MARK_DIGITS}}})?|\$\w+|\$\{{\w+\}}"
"""A password that needs no mask any more, or that is a variable's name and no value."""
_URL_USER = r"""(//[^/\s:@"'`]*:)([^/\s"'`]+)(?=@)"""
_URL_ALONE = r"""(https?://)([^/\s:@"'`]{16,})(?=@)"""
"""`https://TOKEN@host`: names of people are shorter."""
_ELSE = "\0another value\0"
_MAX_DEPTH = 50
"""`${…}` within each other, as `expand` has it."""


class SecretValues:
    """Filled while stages are lowered; complete when they all are.

    Its methods that mask cost nothing worth mentioning where there is no secret.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        for value in values:
            self._add(value)
        self._derived: set[tuple[str, str]] = set()

    # what is known

    def _add(self, value: str) -> None:
        if value.strip():
            self._values.update(_forms(value))

    def note(self, name: str, value: str, *, derived: bool = False) -> None:
        """A variable that got a value. derived: it was made of a secret, see `note_expanded`."""
        if is_secret_name(name):
            self._add(value)
        if derived:
            self._derived.add((name, value))

    def note_value(self, name: str, value: str) -> None:
        """A secret, whatever it is called: an earlier build knew it as one, see `secret_configs`."""
        self._add(value)
        self._derived.add((name, value))

    def note_path(self, written: str, clean: Callable[[str], str]) -> None:
        """A path that is cleaned: what that leaves of a secret with slashes in it, as `/..` does, is secret too."""
        masked = self.shown(written)
        if masked == written:
            return
        harmless = clean(masked).split("/")
        for part in self.shown(clean(written)).split("/"):
            if len(part) >= WITHIN and part not in harmless and MASK not in part:
                self._add(part)

    def note_expanded(
        self, text: str, result: str, values: Mapping[str, str], expand: Callable[[str, dict[str, str]], str]
    ) -> bool:
        """Whether what became of a text says something about a secret.

        text: as written. result: with these values of variables. expand: makes the same of a text and values.

        What was cut out of a secret, as in `${TOKEN%…}`, or changed in another way, is a secret from then on.
        """
        if "$" not in text:
            return False
        used = [name for name, value in values.items() if name in text and value and self.holds(name, value)]
        if not used:
            return False
        known, other = dict(values), {**values, **dict.fromkeys(used, _ELSE)}
        if result == expand(text, other):
            return False  # `${TOKEN:+given}`, or only a part of another name
        whole = {values[name] for name in used}
        pieces = {piece: expand(piece, known) for piece in _references(text) if any(name in piece for name in used)}
        cuts = {
            made
            for piece, made in pieces.items()
            if made.strip() and made != expand(piece, other) and not _holds_one(made, whole)
        }
        for cut in cuts:
            self._add(cut)
        # What is too short to be looked for is found with all that stands around it.
        if not any(value in result for value in whole) or any(len(cut) < WITHIN for cut in cuts):
            self._add(result)
        return True

    def holds(self, name: str, value: str) -> bool:
        """Whether a variable with this value gives a secret away."""
        return is_secret_name(name) or (name, value) in self._derived or self.shown(value) != value

    # masks

    def shown(self, text: str) -> str:
        """The text for people, MASK where a secret was."""
        return self._masked(text, self._values, lambda _: MASK)

    def hide(self, error: Error) -> Error:
        """The same error, with a message that gives nothing away."""
        for each in (error, error.cause) if isinstance(error, FailedAt) else (error,):
            each.message, each.hint = self.shown(each.message), self.shown(each.hint)
            each.args = (each.message,)
        return error

    def marked(self, operation: Any, mark: Mark) -> Any:
        """Plain data as `key_form` makes it for a record: MASK and a mark in place of each secret, at any depth.

        mark: MARK_DIGITS hex digits for a value, the same for the same one. Done twice it is the same as once. Names of
        fields and types stay.
        """
        values = self._values
        if isinstance(operation, dict):
            own = [value for _, name, value in _pairs(operation) if is_secret_name(name) and value.strip()]
            values = values.union(*(_forms(value) for value in own if not re.fullmatch(_MARKED, value)))
        return self._marked(operation, values, lambda value: f"{MASK}{mark(value)}")

    def _marked(self, value: Any, values: set[str], stand_in: Mark) -> Any:
        if isinstance(value, str):
            return stand_in(value) if value in values else self._masked(value, values, stand_in)
        if isinstance(value, list | tuple):
            return [self._marked(item, values, stand_in) for item in value]
        if not isinstance(value, dict):
            return value
        ours = "is" in value
        found = {
            name if ours else self._marked(name, values, stand_in):
            item if ours and name == "is" else self._marked(item, values, stand_in)
            for name, item in value.items()
        }  # fmt: skip
        for place, name, item in _pairs(value):
            if is_secret_name(name):
                found["env"][place] = [found["env"][place][0], self._whole(item, stand_in)]
        return found

    def _whole(self, value: str, stand_in: Mark) -> str:
        return value if re.fullmatch(_MARKED, value) else stand_in(value)

    def _masked(self, text: str, values: set[str], stand_in: Mark) -> str:
        found = [value for value in values if len(value) >= WITHIN and value in text]
        if found:
            longest_first = sorted(found, key=lambda value: (-len(value), value))
            pattern = "|".join([_MARKED, *map(re.escape, longest_first)])
            text = re.sub(pattern, lambda match: match[0] if match[0] not in values else stand_in(match[0]), text)
        if "//" in text and "@" in text:
            for pattern in (_URL_USER, _URL_ALONE):
                text = re.sub(pattern, lambda match: match[1] + _password(match[2], stand_in), text)
        return text


def _forms(value: str) -> set[str]:
    """The value, and what becomes of it in a path that is cleaned."""
    found = {value}
    if "/" in value:
        for path in (posixpath.normpath(value), posixpath.normpath(f"/{value}")):
            path = "/" + path.lstrip("/") if value.startswith("/") else path.lstrip("/")
            if len(path) >= WITHIN:
                found.add(path)
    return found


def _references(text: str) -> set[str]:
    """Each `${…}` of a text, also those within another. Some may be quoted and stand for themselves."""
    found = set()
    begun: list[int] = []
    for match in re.finditer(r"\$\{|\}", text):
        if match[0] != "}":
            begun.append(match.start())
        elif begun:
            start = begun.pop()
            if len(begun) < _MAX_DEPTH:
                found.add(text[start : match.end()])
    return found


def _holds_one(text: str, values: set[str]) -> bool:
    """Whether a text is one of the values, or shows one that is looked for."""
    return text in values or any(value in text for value in values if len(value) >= WITHIN)


def _pairs(operation: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Place, name and value of the variables of a RUN; a mount's `env` is a name, and a damaged record's anything."""
    env = operation.get("env")
    listed = enumerate(env if isinstance(env, list) else ())
    pairs = ((place, pair) for place, pair in listed if isinstance(pair, list) and len(pair) == 2)
    return [(place, *pair) for place, pair in pairs if all(isinstance(each, str) for each in pair)]


def _password(password: str, stand_in: Mark) -> str:
    return password if re.fullmatch(_DONE, password) else stand_in(password)


def shown_url(text: str) -> str:
    """A URL, or a text with URLs, without the passwords in them."""
    return SecretValues().shown(text)
