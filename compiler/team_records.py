"""Team: the records of builds that a cache server has from everybody who may be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.build_record import BuildRecord
from cache.errors import RemoteError
from compiler.foreign_records import unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.remote.client import Client

SEARCHED = 200
"""Builds of a project that are looked through, newest first, in each namespace."""
MAX_BUILD = 16 << 20
"""Bytes of an unpacked record of a build."""


class Team:
    """The namespaces of a server that are read."""

    def __init__(self, client: Client) -> None:
        """Raises RemoteError if the server keeps no records."""
        self._client = client
        if not client.can.is_ours:
            text = f"{client.settings.origin} keeps no records of builds: it is no server of buildgraph's"
            raise RemoteError(text)
        self._reads = client.reads

    def find(self, kind: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Records; the first namespace that has one counts. Raises RemoteError."""
        found: dict[str, bytes] = {}
        for namespace in self._reads:
            left = [key for key in keys if key not in found]
            if left:
                found.update(self._client.find_records(namespace, kind, left))
        return found

    def builds(self, project: str, made_by: str = "") -> list[BuildRecord]:
        """The newest first. Raises RemoteError."""
        found: dict[str, bytes] = {}
        for namespace in self._reads:
            found.update(self._client.list_builds(namespace, project, made_by, SEARCHED))
        builds = (parsed_build(key, found[key]) for key in sorted(found, reverse=True))
        return [build for build in builds if build is not None]

    def made(self, recipe: str) -> str | None:
        """Who made the result of this recipe; None if there is none. Raises RemoteError."""
        for namespace in self._reads:
            found = self._client.find_results(namespace, "recipe", [recipe])
            if recipe in found:
                return found[recipe][1].result.made_by
        return None


def parsed_build(key: str, record: bytes) -> BuildRecord | None:
    data = unpacked(record, MAX_BUILD)
    return None if data is None else BuildRecord.parse(key, record)
