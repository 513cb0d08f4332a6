"""The contract of a store: blobs by digest and records by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Future

    from cache.digest import Digest

Table = Literal[
    "recipes", "results", "layers", "stats", "names", "places", "outputs", "fetches", "forms", "preimages", "builds",
    "uses", "evictions", "condemned", "aliases", "members", "actions", "chunks", "ranges", "shared", "promised",
    "published",
]  # fmt: skip
"""Kinds of record.

recipes: recipe key → content key. results: content key → Result. layers: diff_id → Layer with tar and listing.
stats: directory of a context → what was hashed there. names: image name → image. places: where a step stands in a file
→ its last keys, and marks of secrets in own images. outputs: op and content → the layer that first had it. fetches: URL
→ validators and blob. forms: diff_id → compressed forms that are known. preimages: recipe key → what it was made of.
builds: time → what a build did (`BuildRecord`). uses: result or layer → `Usage`. evictions: content key → when and why
its result was dropped. condemned: blob → when it became unwanted; it goes once no build that may still read it is
alive. chunks: blob → its content-defined chunks. ranges: chunk → the blobs that it is a part of, and where. promised:
what a cache server has and this store has not, see `cache.promises`. published: what a cache server was given or gave,
and when.

Only in a server's store: aliases: sha256 `HASH/SIZE` → blob. members: namespace, blob → that it belongs there, since
when, who put it. actions: namespace, digest function, digest of an action → its result in the Remote Execution API's
form. shared: namespace, kind, key → a record that a team shares.
"""
TABLES: tuple[Table, ...] = (
    "recipes", "results", "layers", "stats", "names", "places", "outputs", "fetches", "forms", "preimages", "builds",
    "uses", "evictions", "condemned", "aliases", "members", "actions", "chunks", "ranges", "shared", "promised",
    "published",
)  # fmt: skip

MOUNTS = "mounts"
SNAPSHOTS = "snapshots"
"""Directories of a store that the worker fills and the management lists: cache mounts, layers prepared for mounting."""


class NewFile(NamedTuple):
    """A finished file in the store's scratch space that becomes a blob. path: where it is now."""

    digest: Digest
    path: str


class Batch(NamedTuple):
    """What becomes visible at once: every blob, then every record that names one.

    needs: blobs that records here name and that are in the store already, so that no clean-up takes them meanwhile.
    """

    blobs: Mapping[Digest, bytes] = {}
    files: tuple[NewFile, ...] = ()
    records: tuple[tuple[Table, str, bytes], ...] = ()
    deleted: tuple[tuple[Table, str], ...] = ()
    needs: tuple[Digest, ...] = ()


class Store(Protocol):
    """Blobs and records of one directory. All methods may be called from several threads at once.

    Whoever puts a blob has hashed its bytes while they streamed by; nobody checks them again until they cross a
    door to another machine.
    """

    def submit(self, batch: Batch) -> Future[None]:
        """Queue a batch; readers of this process see it now, other processes see all of it or nothing later.

        When the future is done the batch is durable. Idempotent. The future raises StoreProblem.
        """
        ...

    def commit(self, batch: Batch) -> None:
        """`submit`, and wait until it is durable. Raises StoreProblem."""
        ...

    def get(self, table: Table, key: str) -> bytes | None:
        """The record, or None."""
        ...

    def get_many(self, table: Table, keys: Iterable[str]) -> dict[str, bytes]:
        """Those of the records that exist, read in one snapshot."""
        ...

    def scan(self, table: Table, prefix: str = "") -> list[tuple[str, bytes]]:
        """All records whose key starts with the prefix, in order of their keys."""
        ...

    def has_blob(self, digest: Digest) -> bool: ...

    def read_blob(self, digest: Digest) -> bytes:
        """The whole blob. Raises StoreProblem if it is not there."""
        ...

    def blob_path(self, digest: Digest) -> str:
        """A file that holds the blob for as long as this process runs. Raises StoreProblem if it is not there."""
        ...

    def scratch(self, name: str) -> str:
        """A new path below this run's scratch directory, on the store's filesystem; nothing is created there."""
        ...

    def close(self) -> None:
        """Wait for what was submitted, then let go. Raises StoreProblem if something could not be written."""
        ...
