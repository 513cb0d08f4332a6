"""Explain: why a step's recipe is not the one of an earlier build: compared field by field, down to what changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from cache import encoding
from cache.size_text import bytes_text
from compiler.operation_diff import cut, differences
from compiler.progress.text import age_text
from compiler.reasons import Explained, Reason
from worker import file_list

if TYPE_CHECKING:
    from cache.store import Store
    from compiler.preimage import InputNote, Preimage
    from worker.file_list import FileChanges, Listed

MAX_DEPTH = 200
"""Steps that a cause is followed down through; Dockerfiles have some dozens."""
NAMED = 3
"""Files that a sentence names; all stand in the details, up to LISTED."""
LISTED = 200
NEVER_BUILT = "no earlier build of this step is known"
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


def explain(now: Preimage, before: Preimage | None, world: World) -> Explained:
    """Why the recipe is another than before. Equal ones are GONE: the result was there, and is not any more."""
    return _explain(now, before, world, 0)


def _explain(now: Preimage, before: Preimage | None, world: World, depth: int) -> Explained:
    if before is None:
        return Explained(Reason.NEVER_BUILT, NEVER_BUILT)
    causes = []
    if now.parts["platform"] != before.parts["platform"]:
        text = f"the platform was {before.parts['platform']}, is {now.parts['platform']}"
        causes.append(Explained(Reason.PLATFORM_CHANGED, text))
    causes += differences(before.operation, now.operation)
    causes += _secrets(now, before)
    if not any(cause.reason is Reason.OPERATION_CHANGED for cause in causes):
        causes += _sources(now, before, world, depth)
    old, new = before.parts["rootfs"], now.parts["rootfs"]
    if old and new and old != new:  # "": a --link step, which looks at nothing below
        causes.append(_input(now.inputs[0], before.inputs[0], world, depth))
    if not causes:
        return Explained(Reason.GONE, "its result is no longer in the store")
    first, *others = causes
    details = list(first.details)
    for other in others:
        details += [f"also: {other.text}", *other.details]
    return first._replace(details=tuple(details))


def _secrets(now: Preimage, before: Preimage) -> list[Explained]:
    old, new = dict(before.parts.get("secrets", ())), dict(now.parts.get("secrets", ()))
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [Explained(Reason.SECRET_CHANGED, f"the value of the secret {name} changed") for name in names]


def _sources(now: Preimage, before: Preimage, world: World, depth: int) -> list[Explained]:
    found = []
    old, new = before.parts["sources"], now.parts["sources"]
    if len(old) != len(new):
        return []
    for was, is_ in zip(old, new, strict=True):
        if was == is_:
            continue
        come, gone = _with_recipe(now, is_), _with_recipe(before, was)
        if come is not None and gone is not None:
            found.append(_input(come, gone, world, depth, copied=True))
            continue
        files, earlier = world.files(is_), world.files(was)
        if files is None or earlier is None:
            found.append(Explained(Reason.FILES_CHANGED, "the files that it takes changed"))
        else:
            found.append(describe(file_list.compare(earlier, files)))
    return found


def _with_recipe(preimage: Preimage, recipe: str) -> InputNote | None:
    return next((note for note in preimage.inputs if note.recipe == recipe), None)


def _input(now: InputNote, before: InputNote, world: World, depth: int, *, copied: bool = False) -> Explained:
    """Why an input is another: what the step below says of itself, as far down as it takes."""
    reason = Reason.SOURCE_CHANGED if copied else Reason.BASE_CHANGED
    what = f"what it {'takes from' if copied else 'builds on'} changed"
    below, earlier = world.earlier(now.recipe), world.earlier(before.recipe)
    if below is None or earlier is None or depth >= MAX_DEPTH:
        old, new = before.text or before.node, now.text or now.node
        return Explained(reason, what if old == new else f"{what}: {old} → {new}")
    if below.operation.get("is") == "Image" and earlier.operation.get("is") == "Image":
        # Of an image of this store's own there is no digest to tell: its name is the same, what it holds is not.
        text = f"the image {below.operation.get('name')} was made anew, and differs"
        anew = Explained(Reason.BASE_IMAGE_CHANGED, text)
        return next(iter(differences(earlier.operation, below.operation)), anew)
    if _stands_on(below, earlier):
        cause = Explained(Reason.NEVER_BUILT, "it is new here")
    elif _stands_on(earlier, below):
        return Explained(reason, f"{what}: {_title(earlier)} is gone")
    elif not (below.inputs and earlier.inputs):
        # A step where an image was, or the reverse: there is nothing to compare.
        return Explained(reason, f"{what}: {_title(earlier)} → {_title(below)}")
    else:
        cause = _explain(below, earlier, world, depth + 1)
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
    lines = [f"+ {one.path} ({bytes_text(one.size)})" for one in changes.added]
    lines += [f"- {one.path} (was {bytes_text(one.size)})" for one in changes.removed]
    lines += [f"~ {new.path} ({bytes_text(old.size)} → {bytes_text(new.size)})" for old, new in changes.changed]
    lines += [f"~ {new.path} (mode {old.mode:o} → {new.mode:o})" for old, new in changes.modes]
    parts = [
        _names("changed", [new.path for _, new in changes.changed]),
        _names("is new" if len(changes.added) == 1 else "are new", [one.path for one in changes.added]),
        _names("is gone" if len(changes.removed) == 1 else "are gone", [one.path for one in changes.removed]),
        _names("changed mode", [new.path for _, new in changes.modes]),
    ]
    text = "; ".join(part for part in parts if part) or "the files that it takes are named otherwise"
    if len(lines) == 1:
        text = f"{text}{lines[0][lines[0].rindex(' ('):] if changes.changed else ''}"
    more = len(lines) - LISTED
    only_modes = changes.modes and not (changes.added or changes.removed or changes.changed)
    reason = Reason.MODE_CHANGED if only_modes else Reason.FILES_CHANGED
    return Explained(reason, text, (*lines[:LISTED], *([f"… and {more} more"] if more > 0 else [])))


def _names(what: str, paths: list[str]) -> str:
    if not paths:
        return ""
    shown = paths[:NAMED]
    rest = len(paths) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more {what}"
    return f"{' and '.join([', '.join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)} {what}"


def explain_gone(store: Store, content: str) -> Explained:
    """Why a result that was there is not any more: evicted, when and by which rule, as far as that is remembered."""
    record = store.get("evictions", content) if content else None
    try:
        if record is not None:
            when, rule = encoding.parse(record)[:2]
            age = age_text(time.time() - float(when))
            return Explained(Reason.EVICTED, f"its result was evicted {age} ago: {rule}")
    except encoding.UNREADABLE:
        pass
    return Explained(Reason.GONE, "its result is no longer in the store")
