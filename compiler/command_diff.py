"""CommandDiff: what is different between the commands of two RUNs, in words for people."""

from __future__ import annotations

import os.path
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from compiler.reasons import Explained, Reason
from compiler.text_diff import SHOWN, arrow, both, cut, sequence_diff, word_diff

if TYPE_CHECKING:
    from collections.abc import Mapping

_PIPES = "/dev/pipes/"
"""Where a heredoc that is executed itself is mounted; people wrote `<<NAME`."""


class _Command(NamedTuple):
    """words: of the argument vector; a heredoc stands as it was written. has_script: whether one of them is one."""

    words: list[str]
    has_script: bool

    @property
    def shell(self) -> list[str]:
        """All but the text, where there may be a shell that gets one."""
        return self.words[:-1]

    @property
    def is_shell(self) -> bool:
        """Whether the last word is surely a text for a shell."""
        *program, option = self.shell or [""]
        names = [os.path.basename(word) for word in program]
        return option.startswith("-") and option.endswith("c") and any(name.endswith("sh") for name in names)

    @property
    def quoted(self) -> str:
        """On one line; where a word ends can be seen."""
        return " ".join((" ".join(self.words) if self.has_script else shlex.join(self.words)).split())


def command_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Explained:
    """Of two RUNs, as `key_form` has them, whose argument vectors or scripts differ."""
    was, is_ = _command(old), _command(new)
    if was.is_shell and is_.is_shell and was.words[-1] == is_.words[-1]:
        shells = shlex.join(was.shell), shlex.join(is_.shell)
        details = both(*shells) if max(map(len, shells)) > SHOWN else ()
        return Explained(Reason.COMMAND_CHANGED, f"SHELL changed: {arrow(*shells)}", details)
    # The shell is left out where it says nothing: both have the same.
    plain = was.shell == is_.shell and (was.is_shell or (len(was.words) == 3 and was.words[1] == "-c"))
    before, after = (each.words[-1] if plain else " ".join(each.words) for each in (was, is_))
    if before.split() != after.split():
        lines = (before, after) if plain else (was.quoted, is_.quoted)
        lines = (" ".join(lines[0].split()), " ".join(lines[1].split()))
        return Explained(Reason.COMMAND_CHANGED, f"the command changed: {word_diff(before, after)}", both(*lines))
    if not plain and [word.split() for word in was.words] != [word.split() for word in is_.words]:
        change = sequence_diff([*map(shlex.quote, was.words)], [*map(shlex.quote, is_.words)])
        text = f"the words of the command are divided otherwise: {change}"
        return Explained(Reason.COMMAND_CHANGED, text, both(was.quoted, is_.quoted))
    return Explained(Reason.COMMAND_CHANGED, "only blanks in the command changed", both(repr(before), repr(after)))


def _command(operation: Mapping[str, Any]) -> _Command:
    words = [str(word) for word in operation.get("argv", ())]
    names = {str(each.get("name")): str(each.get("body", "")) for each in operation.get("scripts", ())}
    written = {f"{_PIPES}{name}": f"<<{name}\n{body}" for name, body in names.items()}
    found = [written.get(word, word) for word in words]
    return _Command(found, found != words)


def text_change(name: str, old: str, new: str) -> Explained:
    """Of the heredoc that a COPY puts there as a file. name: as it stands behind `<<`."""
    what = f"the text of <<{cut(name, SHOWN)}"
    if old.split() == new.split():
        return Explained(Reason.OPERATION_CHANGED, f"only blanks in {what} changed", both(repr(old), repr(new)))
    lines = both(" ".join(old.split()), " ".join(new.split()))
    return Explained(Reason.OPERATION_CHANGED, f"{what} changed: {word_diff(old, new)}", lines)
