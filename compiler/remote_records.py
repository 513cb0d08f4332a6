"""Records that explain results to a team: what keys were made of, compressed forms, builds; without a host's paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache import encoding
from cache.naming import hashes_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cache.build_record import BuildRecord
    from cache.store import Store

Record = tuple[str, str, bytes]
"""(kind, key, value)."""
MOST_FORMS = 8
"""Of one layer that are shared."""


def step_records(store: Store, recipes: Iterable[str], known: set[str]) -> list[Record]:
    """What the recipe keys were made of, with what those name in turn. known: keys that were taken before; added to."""
    found: list[Record] = []
    pending = list(recipes)
    while pending:
        wanted = {key for key in pending if key not in known}
        known |= wanted
        rows = store.get_many("preimages", wanted | {f"source:{key}" for key in wanted})
        pending = []
        for key, value in rows.items():
            kind, _, name = key.rpartition(":")
            found.append(("sources" if kind else "preimages", name, value))
            if not kind:
                pending += sorted(hashes_in(value))
    return found


def form_records(store: Store, layers: Collection[str]) -> dict[str, bytes]:
    """Compressed forms by diff_id, as far as they mean something elsewhere: what a local layout has does not."""
    found: dict[str, bytes] = {}
    for diff_id, record in store.get_many("forms", layers).items():
        value = read_forms(record)
        if value is not None:
            found[diff_id] = value
    return found


def read_forms(record: bytes) -> bytes | None:
    """A record of `forms` without what is only on one machine; None if nothing is left, or it cannot be read."""
    try:
        forms = [
            [str(media), str(digest), int(size), str(origin)]
            for media, digest, size, origin in encoding.parse(record)
            if not str(origin).startswith("layout:")
        ]
    except encoding.UNREADABLE:
        return None
    return encoding.canonical(forms[-MOST_FORMS:]) if forms else None


def build_record(build: BuildRecord) -> Record:
    """As others may see it: the project by its name alone."""
    _, key, value = build._replace(project=project_name(build.project)).encode()
    return "builds", key, value


def project_name(project: str) -> str:
    """What others may know of a project that is called by its directory."""
    return (os.path.basename(project.rstrip("/")) if os.path.isabs(project) else project) or "-"
