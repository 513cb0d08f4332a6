"""Usage: when a result or an image's layer was last used, how often and by which projects; what eviction goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache import encoding

if TYPE_CHECKING:
    from cache.lmdb_view import View
    from cache.store import Store, Table

MAX_PROJECTS = 8
"""Projects that are remembered of one result; what more use it says nothing new."""


class Usage(NamedTuple):
    """last: seconds since the epoch. builds: how many used it. projects: ids, see `project_key`, newest first."""

    last: int = 0
    builds: int = 0
    projects: tuple[str, ...] = ()

    def used(self, now: float, project: str) -> Usage:
        """The same after one more build."""
        others = tuple(other for other in self.projects if other != project)
        return Usage(max(self.last, int(now)), self.builds + 1, (project, *others)[:MAX_PROJECTS])

    def encode(self) -> bytes:
        return encoding.canonical([self.last, self.builds, list(self.projects)])

    @classmethod
    def parse(cls, record: bytes | None) -> Usage:
        """No use at all for a record that is missing or damaged."""
        if record is not None:
            try:
                last, builds, projects = encoding.parse(record)
                return cls(int(last), int(builds), tuple(str(each) for each in projects))
            except encoding.UNREADABLE:
                pass
        return cls()


def result_key(content: str) -> str:
    """The key in `uses` of the result of an action."""
    return f"result:{content}"


def layer_key(diff_id: str) -> str:
    """The key in `uses` of a layer of an image from outside."""
    return f"layer:{diff_id}"


def project_key(project: str) -> str:
    """A short id for a project, which is called by its context's directory or URL."""
    return encoding.key("project", project)[:16]


def project_record(project: str) -> tuple[Table, str, bytes]:
    """The record that says which project an id stands for."""
    return "places", f"project:{project_key(project)}", encoding.canonical(project)


def project_names(store: Store | View) -> dict[str, str]:
    """Project id → its name, of all projects that ever built here."""
    found = {}
    for key, record in store.scan("places", "project:"):
        try:
            found[key.removeprefix("project:")] = str(encoding.parse(record))
        except encoding.UNREADABLE:
            continue
    return found
