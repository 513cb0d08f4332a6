"""Explain: why a step's recipe is not the one of an earlier build: compared field by field, down to what changed."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache import encoding
from cache.entry import DIRECTORY, FILE, SYMLINK
from cache.size_text import bytes_text
from compiler.incomparable import incomparable, without_marks
from compiler.operation_diff import cut, differences
from compiler.progress.text import age_text
from compiler.reasons import Explained, Reason
from compiler.secret_marks import ABSENT
from worker import file_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.store import Store
    from compiler.preimage import InputNote, Preimage
    from worker.file_list import FileChanges, Listed

MAX_DEPTH = 200
"""Steps that a cause is followed down through; Dockerfiles have some dozens."""
NAMED = 3
"""Files that a sentence names; all stand in the details, up to LISTED."""
LISTED = 200
MAX_DETAILS = 500
"""Lines of details of one step, those of the steps below among them: they add up along every way through a graph."""
NEVER_BUILT = "no earlier build of this step is known"
NEW_HERE = "it is new here"
_ALSO = "also: "
OTHER_KEY = "the key of what"
_KINDS = {FILE: "a file", DIRECTORY: "a directory", SYMLINK: "a symlink"}
_SPECIAL = "a special file"
TITLE = 60
"""Characters of another instruction that a sentence names."""


class World(Protocol):
    """Where an explanation finds what keys were made of: `StepRecords`, or a `PlannedWorld` in front of them."""

    def earlier(self, recipe: str) -> Preimage | None:
        """What a recipe key was made of."""
        ...

    def files(self, source: str) -> list[Listed] | None:
        """The files behind the digest of a source."""
        ...


class Search(NamedTuple):
    """found: what was explained already, by recipe now and before. Without it a graph whose steps build on a step and
    copy from it too would be walked once for each way through it. depth: how far down it is. foreign: see `explain`."""

    world: World
    found: dict[tuple[str, str], Explained]
    depth: int = 0
    foreign: bool = False


def explain(
    now: Preimage, before: Preimage | None, world: World, found: dict[tuple[str, str], Explained] | None = None,
    *, foreign: bool = False,
) -> Explained:
    """Why the recipe is another than before. Equal ones are GONE: the result was there, and is not any more.

    found: kept by whoever asks about several steps of one graph. foreign: the two may come from different stores, whose
    marks of secrets say nothing to one another.
    """  # fmt: skip
    if before is None:
        return Explained(Reason.NEVER_BUILT, NEVER_BUILT)
    return _explain(now, before, Search(world, {} if found is None else found, foreign=foreign))


def _explain(now: Preimage, before: Preimage, search: Search) -> Explained:
    pair = (now.recipe, before.recipe)
    if pair not in search.found:
        search.found[pair] = _compare(now, before, search)
    return search.found[pair]


def _compare(now: Preimage, before: Preimage, search: Search) -> Explained:
    causes = []
    hidden: list[Explained] = []
    if search.foreign:
        hidden = incomparable(now, before)
        now, before = without_marks(now), without_marks(before)
    if now.parts["platform"] != before.parts["platform"]:
        text = f"the platform was {before.parts['platform']}, is {now.parts['platform']}"
        causes.append(Explained(Reason.PLATFORM_CHANGED, text))
    causes += differences(before.operation, now.operation)
    causes += _secrets(now, before)
    if not any(cause.reason is Reason.OPERATION_CHANGED for cause in causes):
        causes += _sources(now, before, search)
    old, new = before.parts["rootfs"], now.parts["rootfs"]
    if old and new and old != new:  # "": a --link step, which looks at nothing below
        causes.append(_input(now.inputs[0], before.inputs[0], search))
    causes += hidden
    if not causes:
        text = "its result is no longer in the store"
        return Explained(Reason.GONE, "nothing that is recorded of the two differs" if search.foreign else text)
    first, *others = causes
    details = list(first.details)
    said = {first.details}
    for other in others:
        details += [f"{_ALSO}{other.text}", *(f"  {line}" for line in _unsaid(other.details, said, first.text))]
    return first._replace(details=tuple(details[:MAX_DETAILS]))


def _unsaid(details: Sequence[str], said: set[tuple[str, ...]], cause: str) -> list[str]:
    """The details without lists that were said already, and without further steps that changed by the same cause.

    said: those lists; the ones that are left are added. A variable often reaches every step of a stage.
    """
    found: list[str] = []
    also = ""
    for is_also, lines in itertools.groupby(details, lambda line: line.lstrip().startswith(_ALSO)):
        group = list(lines)
        if is_also:
            found += [line for line in group if not line.endswith(f": {cause}")]
            also = group[-1]
        elif (plain := tuple(line.strip() for line in group)) not in said:
            said.add(plain)
            # The same words may stand for other values.
            found += [also, *group] if also and also.endswith(f": {cause}") else group
    return found


def _secrets(now: Preimage, before: Preimage) -> list[Explained]:
    old, new = dict(before.parts.get("secrets", ())), dict(now.parts.get("secrets", ()))
    found = []
    for name in sorted({*old, *new}):
        was, is_ = old.get(name, ABSENT), new.get(name, ABSENT)
        if was == is_ and (name in old) == (name in new):
            continue
        if (name in old) != (name in new):
            text = f"the secret {name} {'counts now' if name in new else 'does not count any more'}"
        elif ABSENT in (was, is_):
            text = f"the secret {name} {'is given now' if was == ABSENT else 'is not given any more'}"
        else:
            text = f"the value of the secret {name} changed"
        found.append(Explained(Reason.SECRET_CHANGED, text))
    return found


def _sources(now: Preimage, before: Preimage, search: Search) -> list[Explained]:
    found = []
    old, new = before.parts["sources"], now.parts["sources"]
    if len(old) != len(new):
        return []
    for was, is_ in zip(old, new, strict=True):
        if was == is_:
            continue
        come, gone = _with_recipe(now, is_), _with_recipe(before, was)
        if come is not None and gone is not None:
            found.append(_input(come, gone, search, copied=True))
            continue
        files, earlier = search.world.files(is_), search.world.files(was)
        if files is None or earlier is None:
            found.append(Explained(Reason.FILES_CHANGED, "the files that it takes changed"))
        else:
            found.append(describe(file_list.compare(earlier, files)))
    return found


def _with_recipe(preimage: Preimage, recipe: str) -> InputNote | None:
    return next((note for note in preimage.inputs if note.recipe == recipe), None)


def _input(now: InputNote, before: InputNote, search: Search, *, copied: bool = False) -> Explained:
    """Why an input is another: what the step below says of itself, as far down as it takes."""
    reason = Reason.SOURCE_CHANGED if copied else Reason.BASE_CHANGED
    what = f"what it {'takes from' if copied else 'builds on'} changed"
    below, earlier = search.world.earlier(now.recipe), search.world.earlier(before.recipe)
    if below is None or earlier is None or search.depth >= MAX_DEPTH:
        old, new = before.text or before.node, now.text or now.node
        return Explained(reason, what if old == new else f"{what}: {old} → {new}")
    if below.operation.get("is") == "Image" and earlier.operation.get("is") == "Image":
        # Nothing tells them apart where older records do not have the layers.
        text = f"the image {below.operation.get('name')} was made anew, and differs"
        anew = Explained(Reason.BASE_IMAGE_CHANGED, text)
        return next(iter(differences(earlier.operation, below.operation)), anew)
    if _stands_on(below, earlier):
        cause = Explained(Reason.NEVER_BUILT, NEW_HERE)
    elif _stands_on(earlier, below):
        return Explained(reason, f"{what}: {_title(earlier)} is gone")
    elif not (below.inputs and earlier.inputs):
        # A step where an image was, or the reverse: there is nothing to compare.
        return Explained(reason, f"{what}: {_title(earlier)} → {_title(below)}")
    else:
        cause = _explain(below, earlier, search._replace(depth=search.depth + 1))
    if cause.reason is Reason.SECRET_UNKNOWN:
        # Nobody can say whether it changed: what is known is that the keys are not the same.
        if cause.text.startswith(OTHER_KEY):
            return cause
        where = f"it {'takes from' if copied else 'builds on'} is another, at {_title(below)}"
        return cause._replace(text=f"{OTHER_KEY} {where}: {cause.text}")
    if cause.reason in (Reason.BASE_CHANGED, Reason.BASE_IMAGE_CHANGED, Reason.SOURCE_CHANGED):
        return cause if not copied else cause._replace(reason=Reason.SOURCE_CHANGED)
    return Explained(reason, f"{what}, at {_title(below)}: {cause.text}", cause.details)


def _stands_on(upper: Preimage, lower: Preimage) -> bool:
    """Whether the one builds directly on the other: a step was put between, or taken away."""
    return bool(upper.inputs) and upper.inputs[0].recipe == lower.recipe


def _title(preimage: Preimage) -> str:
    return f"«{cut(' '.join(preimage.title.split()), TITLE)}»"


def describe(changes: FileChanges) -> Explained:
    """Files added, removed and changed: the first ones in the sentence, all in the details."""
    lines = [f"+ {one.path}{_size(one)}" for one in changes.added]
    lines += [f"- {one.path}{_size(one, 'was ')}" for one in changes.removed]
    hows = [_how(old, new) for old, new in changes.changed]
    lines += [f"~ {new.path}{f' ({how})' if how else ''}" for (_, new), how in zip(changes.changed, hows, strict=True)]
    lines += [f"~ {new.path} (mode {old.mode:o} → {new.mode:o})" for old, new in changes.modes]
    parts = [
        _names("changed", [new.path for _, new in changes.changed]),
        _names("is new" if len(changes.added) == 1 else "are new", [one.path for one in changes.added]),
        _names("is gone" if len(changes.removed) == 1 else "are gone", [one.path for one in changes.removed]),
        _names("changed mode", [new.path for _, new in changes.modes]),
    ]
    text = "; ".join(part for part in parts if part) or "the files that it takes are named otherwise"
    if len(lines) == 1 and hows and hows[0]:
        both_link = {one.kind for one in changes.changed[0]} == {SYMLINK}
        text = f"{changes.changed[0][1].path} {hows[0]}" if both_link else f"{text} ({hows[0]})"
    more = len(lines) - LISTED
    only_modes = changes.modes and not (changes.added or changes.removed or changes.changed)
    reason = Reason.MODE_CHANGED if only_modes else Reason.FILES_CHANGED
    return Explained(reason, text, (*lines[:LISTED], *([f"… and {more} more"] if more > 0 else [])))


def _size(one: Listed, before: str = "") -> str:
    """Of a file; nothing else has one, and a file that is only assumed has none yet."""
    return f" ({before}{bytes_text(one.size)})" if one.kind == FILE and one.size >= 0 else ""


def _how(old: Listed, new: Listed) -> str:
    """How something differs from what had its name before; "" if nobody knows."""
    if old.size < 0 or new.size < 0:
        return ""
    if old.kind != new.kind:
        return f"{_KINDS.get(old.kind, _SPECIAL)} → {_KINDS.get(new.kind, _SPECIAL)}"
    if new.kind == SYMLINK:
        return f"points to {new.digest}, was {old.digest}"
    return f"{bytes_text(old.size)} → {bytes_text(new.size)}"


def _names(what: str, paths: list[str]) -> str:
    if not paths:
        return ""
    shown = paths[:NAMED]
    rest = len(paths) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more {what}"
    return f"{' and '.join([', '.join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)} {what}"


def explain_gone(store: Store, content: str, title: str = "", elsewhere: str = "") -> Explained:
    """Why a result that was there is not any more: evicted, when and by which rule, as far as that is remembered.

    content: its content key, "" if that is not known. title: of the step, if the sentence is about another one.
    elsewhere: see there.
    """
    its = f"the result of «{cut(' '.join(title.split()), TITLE)}»" if title else "its result"
    evicted = _eviction(store, content)
    if evicted:
        return Explained(Reason.EVICTED, f"{its} was evicted {evicted}")
    return Explained(Reason.GONE, f"{its} {elsewhere or 'is no longer in the store'}")


def explain_forgotten(store: Store, content: str, elsewhere: str = "") -> Explained:
    """Where the step was built before, but what it was made of then is not known any more. content, elsewhere: as
    above."""
    evicted = _eviction(store, content)
    if elsewhere and not evicted:
        text = "it was made elsewhere, and what it was made of is not known here, so what changed is not either"
        return Explained(Reason.EVICTED, text)
    text = "it was built before, but the record of that was evicted, so what changed is not known"
    return Explained(Reason.EVICTED, text, (f"its result was evicted {evicted}",) if evicted else ())


def _eviction(store: Store, content: str) -> str:
    """`5 min ago: by which rule`; "" if nothing is remembered."""
    record = store.get("evictions", content) if content else None
    try:
        if record is not None:
            when, rule = encoding.parse(record)[:2]
            return f"{age_text(time.time() - float(when))} ago: {rule}"
    except encoding.UNREADABLE:
        pass
    return ""
