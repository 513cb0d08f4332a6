"""Policy: how one step is to be treated, from `# buildgraph: …` comments directly above its instruction."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple

from cache.size_text import parse_size
from compiler.dockerfile.durations import parse_duration
from compiler.dockerfile.errors import DockerfileError, did_you_mean
from worker.labels import MAX_ASKED, parse_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.dockerfile.source import Source, Span

PREFIX = "buildgraph:"
"""What a comment line begins with, behind `#` and blanks and in any case, if it holds policies."""
MAX_SECONDS = 3650 * 86400
"""Ten years: whoever writes more has mistaken the unit."""
MAX_RETRIES = 10
"""A step that fails eleven times running does not fail by chance."""

MAX_MEMORY = 1 << 50
"""Bytes, 1 PiB: more than any machine has."""

_STEPS = ("RUN", "COPY", "ADD", "WORKDIR")
_ONLY_RUN = frozenset({"retry", "timeout", "secret-in-key", "memory", "label"})
_EXAMPLES = {
    "no-cache": "no-cache",
    "ttl": "ttl=24h",
    "retry": "retry=3",
    "timeout": "timeout=10m",
    "secret-in-key": "secret-in-key=ID",
    "memory": "memory=4GB",
    "label": "label=NAME=VALUE",
}
WORDS_HINT = f"a policy comment takes {', '.join(_EXAMPLES.values())}"
_WORD = re.compile(r"[^\s,]+")
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?([0-9a-zµμ.]*)")
_ID = re.compile(r"[\w.\-/:@+]{1,255}")


class Policy(NamedTuple):
    """What the comments above a step say about it. None of it is in a key, the history or the image.

    no_cache: it always runs again. ttl: seconds for which a result is good, None for ever. retry: how many more times
    a command that failed is tried. timeout: seconds that one try may take, None for any time. secret_in_key: ids of
    secrets of which a change runs the step again, in the order written. memory: bytes that a worker of a fleet must
    have for it, 0 if that was not said; labels: that it must have, in the order written.
    """

    no_cache: bool = False
    ttl: float | None = None
    retry: int = 0
    timeout: float | None = None
    secret_in_key: tuple[str, ...] = ()
    memory: int = 0
    labels: tuple[tuple[str, str], ...] = ()


NO_POLICY = Policy()


class PolicyComment(NamedTuple):
    """One comment line with policies, whole and without its end. number: of the line, from 1."""

    number: int
    line: str

    def span(self, source: Source) -> Span:
        """The place of the comment, without the blanks around it."""
        from compiler.dockerfile.source import Span

        first = len(self.line) - len(self.line.lstrip()) + 1
        return Span(source, self.number, first, self.number, max(first, len(self.line.rstrip())))


def is_policy(comment: str) -> bool:
    """Whether a comment, without `#` and outer blanks, holds policies."""
    return comment[: len(PREFIX)].lower() == PREFIX


def read_policy(comments: Sequence[PolicyComment], keyword: str, source: Source) -> Policy:
    """The policies above an instruction taken together; DockerfileError with the word's place.

    comments: at least one. keyword: of the instruction, in any case.
    """
    keyword = keyword.upper()
    if keyword not in _STEPS:
        message = f"a policy comment stands above {keyword}; it applies to {', '.join(_STEPS)} only"
        raise DockerfileError(message, comments[0].span(source), hint="put it directly above the step that it is about")
    fields: dict[str, object] = {}
    secrets: list[str] = []
    labels: dict[str, str] = {}
    for comment in comments:
        place = comment.span(source)
        words = list(_WORD.finditer(comment.line, comment.line.index(":") + 1))
        if not words:
            raise DockerfileError("the policy comment says nothing", place, hint=WORDS_HINT)
        for match in words:
            span = place._replace(first_column=match.start() + 1, last_column=match.end())
            name, equals, value = match[0].partition("=")
            _check_word(name, equals, keyword, span)
            field = name.replace("-", "_")
            # A second secret is one more; a second anything else would hide the first.
            if field in fields or (name == "secret-in-key" and value in secrets):
                raise DockerfileError(f"{name if field in fields else match[0]} is given twice", span)
            try:
                if name == "secret-in-key":
                    secrets.append(_secret_id(value))
                elif name == "label":
                    _add_label(labels, value)
                else:
                    fields[field] = _value(name, value)
            except ValueError as error:
                raise DockerfileError(f"{name}: {error}", span, hint=WORDS_HINT) from None
    return Policy(**fields, secret_in_key=tuple(secrets), labels=tuple(labels.items()))  # type: ignore[arg-type]  # as _value made them


def _check_word(name: str, equals: str, keyword: str, span: Span) -> None:
    if name not in _EXAMPLES:
        message = f"unknown policy {name[:60] or '='}{did_you_mean(name, _EXAMPLES)}"
        raise DockerfileError(message, span, hint=WORDS_HINT)
    if name == "no-cache" and equals:
        raise DockerfileError("no-cache takes no value", span)
    if name != "no-cache" and not equals:
        raise DockerfileError(f"{name} needs a value, as in {_EXAMPLES[name]}", span)
    if name in _ONLY_RUN and keyword != "RUN":
        others = ", ".join(example for word, example in _EXAMPLES.items() if word not in _ONLY_RUN)
        raise DockerfileError(
            f"{name} applies to RUN only, not to {keyword}", span, hint=f"above {keyword} it may be {others}"
        )


def _value(name: str, text: str) -> object:
    """The value of a word; ValueError for one that makes no sense."""
    if name == "no-cache":
        return True
    if name == "retry":
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_RETRIES):
            raise ValueError(f"{text[:60] or 'nothing'} is no number from 1 to {MAX_RETRIES}")
        return int(text)
    return _bytes(text) if name == "memory" else _seconds(text)


def _bytes(text: str) -> int:
    """Bytes of a size; ValueError unless machines can have so much."""
    with contextlib.suppress(ValueError):
        size = parse_size(text, 0)
        if 0 < size <= MAX_MEMORY:
            return size
    raise ValueError(f"{text[:60] or 'nothing'} is no size such as 512MB or 4GB, of at most 1024TB")


def _add_label(labels: dict[str, str], text: str) -> None:
    """One more; ValueError if it is none, or one too many."""
    name, value = parse_label(text)
    if name in labels:
        raise ValueError(f"{name[:60]} is given twice")
    if len(labels) == MAX_ASKED:
        raise ValueError(f"a step asks for {MAX_ASKED} labels at most")
    labels[name] = value


def _seconds(text: str) -> float:
    """Seconds of a duration, which may begin with days; ValueError unless above zero and at most ten years."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text[:60] or 'nothing'} is no duration such as 90s, 10m, 1h30m or 7d")
    days, rest = match.groups()
    try:
        seconds = int(days or 0) * 86400 + (parse_duration(rest) / 1e9 if rest else 0.0)
    except ValueError:
        raise ValueError(f"{text[:60]} is no duration such as 90s, 10m, 1h30m or 7d") from None
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{text[:60]} is not above zero and at most 3650d")
    return seconds


def _secret_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ValueError(f"{text[:60] or 'nothing'} is no id of a secret")
    return text
