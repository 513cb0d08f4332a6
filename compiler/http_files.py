"""HttpFiles: files that ADD fetches, kept in the store with what it takes to ask whether they changed."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from cache import encoding
from cache.digest import Digest
from cache.errors import DefinitionError, RemoteError, StoreProblem
from cache.store import Batch, NewFile
from compiler.secret_values import shown_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.store import Store

CHUNK = 1 << 20
CONNECT_SECONDS = 30.0
READ_SECONDS = 90.0
"""A server that says nothing for this long is given up."""
TRIES = 3
MAX_BYTES = 64 << 30
"""A file beyond this is refused rather than filling the disk."""


class Fetched(NamedTuple):
    """A file in the store. modified: seconds since the epoch from Last-Modified, 0 if the server does not say."""

    digest: Digest
    modified: int


class _Known(NamedTuple):
    """A file that was fetched before. validators: headers by which the server says whether it changed since."""

    fetched: Fetched
    validators: dict[str, str]


class HttpFiles:
    """Fetches each URL once a build. With a checksum nothing is asked if the store has that file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fetched: dict[tuple[str, str], Fetched] = {}

    def get(self, url: str, checksum: str, shown: str = "") -> Fetched:
        """checksum: `sha256:…` that the bytes must have, or "". shown: what records and messages call it, for a URL
        that has a secret in it beside a user's password. Raises RemoteError, DefinitionError."""
        key = (url, checksum)
        if key not in self._fetched:
            self._fetched[key] = self._get(url, checksum, shown or shown_url(url))
        return self._fetched[key]

    def _get(self, url: str, checksum: str, shown: str) -> Fetched:
        known = self._known(_record_key(url, checksum, shown))
        if known is not None and checksum:
            return known.fetched
        return self._ask(url, checksum, known, shown)

    def _known(self, key: str) -> _Known | None:
        """What the store has of a URL; None if that cannot be read, or if the file is gone."""
        record = self._store.get("fetches", key)
        if record is None:
            return None
        try:
            value = encoding.parse(record)
            fetched = Fetched(Digest.parse(value["digest"]), int(value["modified"]))
            validators = {
                header: str(value[field])
                for header, field in (("If-None-Match", "etag"), ("If-Modified-Since", "last_modified"))
                if value[field]
            }
        except encoding.UNREADABLE:
            return None
        return _Known(fetched, validators) if self._store.has_blob(fetched.digest) else None

    def _ask(self, url: str, checksum: str, known: _Known | None, shown: str) -> Fetched:
        import urllib3

        headers = {"Accept-Encoding": "identity", "User-Agent": "buildgraph", **(known.validators if known else {})}
        retries = urllib3.Retry(TRIES, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS), retries=retries
        )
        try:
            with contextlib.closing(pool.request("GET", url, headers=headers, preload_content=False)) as response:
                if response.status == 304 and known is not None:
                    return known.fetched
                if response.status != 200:
                    raise RemoteError(f"cannot fetch {shown}: the server answered {response.status} {response.reason}")
                return self._keep(url, checksum, shown, response.headers, response.stream(CHUNK, decode_content=False))
        except urllib3.exceptions.HTTPError as error:
            raise RemoteError(f"cannot fetch {shown}: {_reason(error)}") from None
        finally:
            pool.clear()

    def _keep(self, url: str, checksum: str, shown: str, headers: Any, chunks: Iterator[bytes]) -> Fetched:
        sha256, hasher, size = hashlib.sha256(), blake3(), 0
        path = self._store.scratch("fetch")
        try:
            with open(path, "xb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if size > MAX_BYTES:
                        raise RemoteError(f"cannot fetch {shown}: it is larger than {MAX_BYTES >> 30} GiB")
                    sha256.update(chunk)
                    hasher.update(chunk)
                    file.write(chunk)
        except OSError as error:
            raise StoreProblem(f"cannot keep {shown}: {error.strerror}") from None
        found = f"sha256:{sha256.hexdigest()}"
        if checksum and found != checksum:
            raise DefinitionError(f"{shown} has not the checksum that ADD asks for: it is {found}")
        digest = Digest(hasher.hexdigest(), size)
        modified = _seconds(headers.get("Last-Modified", ""))
        record = encoding.canonical(
            {
                "digest": str(digest),
                "modified": modified,
                "etag": headers.get("ETag", ""),
                "last_modified": headers.get("Last-Modified", ""),
            }
        )
        self._store.submit(
            Batch(files=(NewFile(digest, path),), records=(("fetches", _record_key(url, checksum, shown), record),))
        )
        return Fetched(digest, modified)


def _record_key(url: str, checksum: str, shown: str) -> str:
    """Readable, but for what is secret, and for a query, which is where signatures stand."""
    if shown != url or "?" in url:
        url = f"{shown.partition('?')[0]} {encoding.key('url', url)}"
    return f"{url} {checksum}"


def _seconds(text: str) -> int:
    import email.utils

    try:
        return max(0, int(email.utils.parsedate_to_datetime(text).timestamp()))
    except (ValueError, TypeError, OverflowError, OSError):
        return 0


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(error).__name__


