"""Registry: the OCI distribution API, for pulling and pushing images."""

from __future__ import annotations

import functools
import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from cache.digest import OciDigest
from cache.document import Document
from cache.errors import CorruptBlob, EnvironmentProblem
from cache.oci import MANIFEST_TYPES, MOST_MANIFEST, Descriptor
from cache.reference import InvalidReference, is_repository, is_tag
from cache.registry_auth import Authenticator
from cache.registry_errors import RegistryDenied, RegistryError, RegistryUnreachable, error_codes, from_answer
from cache.transport import MOST_ERROR_BODY, RetryPolicy, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from urllib3.response import BaseHTTPResponse

    from cache.credentials import Credentials

CHUNK = 256 << 10
"""Bytes a read of a blob: large enough for hashing at full speed, small enough to hold one a thread."""
RESUME_PROGRESS = 1 << 20
"""Bytes that have to arrive before a broken download has all its tries again; a server that drips has an end."""
MOST_TAG_PAGES = 100
"""Pages of a tag list, with TAG_PAGE tags each."""
TAG_PAGE = 1000

_ADDRESSES = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


class Registry:
    """One registry host. Any number of threads may use it at once; close it, or use it in a `with`.

    All methods raise RegistryError (RegistryDenied, RegistryNotFound, RegistryUnreachable) after bounded tries,
    and CorruptBlob for bytes that are not what was asked for. Each can be repeated without harm.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool | None = None,
        credentials: Credentials | Callable[[str], Credentials | None] | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """host: `docker.io`, `localhost:5000`. insecure: see Transport.

        credentials: a value, or a function from host to one (`credentials.find`), called only if the registry asks.
        """
        self.host = host
        self._transport = Transport(host, _ADDRESSES.get(host, host), insecure)
        self._auth = Authenticator(self._transport, credentials)
        self._retry = retry or RetryPolicy()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all idle connections."""
        self._transport.close()

    def get_manifest(self, repository: str, reference: str) -> tuple[bytes, str, OciDigest]:
        """The bytes of a manifest or index by tag or digest, the media type that the registry gives it, its digest."""
        what = f"get {self._name(repository, reference)}"
        path = _manifest_path(repository, reference)

        def once() -> tuple[bytes, str, OciDigest]:
            response = self._send("GET", path, repository, what, headers=_accept(), wanted=(200,))
            data = self._transport.read(response, MOST_MANIFEST, what)
            if len(data) > MOST_MANIFEST:
                raise CorruptBlob(f"cannot {what}: the manifest has more than {MOST_MANIFEST} bytes")
            return data, _media_type(response), OciDigest(f"sha256:{hashlib.sha256(data).hexdigest()}")

        data, media_type, digest = self._retry.run(once)
        if ":" in reference and digest != reference:
            raise CorruptBlob(f"cannot {what}: {self.host} sent something else, with digest {digest}")
        return data, media_type, digest

    def head_manifest(self, repository: str, reference: str) -> Descriptor | None:
        """What a tag or digest points at, None when it is not there. Docker Hub does not count this as a pull."""
        what = f"look up {self._name(repository, reference)}"
        path = _manifest_path(repository, reference)
        response = self._retry.run(
            lambda: self._send("HEAD", path, repository, what, headers=_accept(), wanted=(200, 404))
        )
        self._finish(response, what)
        if response.status == 404:
            return None
        digest, size = response.headers.get("Docker-Content-Digest"), response.headers.get("Content-Length", "")
        if digest and size.isascii() and size.isdigit():
            return Descriptor(_media_type(response), OciDigest(digest), int(size))
        data, media_type, found = self.get_manifest(repository, reference)  # both headers are optional
        return Descriptor(media_type, found, len(data))

    def open_blob(self, repository: str, digest: OciDigest, size: int) -> Iterator[bytes]:
        """The bytes of a blob in pieces; a broken connection is taken up again where it broke.

        Size and digest are verified at the end: until the iterator is exhausted, no byte may be trusted.
        """
        what = f"get blob {digest} of {self.host}/{repository}"
        hasher = hashlib.sha256()
        offset = failures = progress = 0
        while True:
            try:
                for chunk in self._blob_from(repository, digest, offset, size, what):
                    hasher.update(chunk)
                    offset += len(chunk)
                    progress += len(chunk)
                    if progress >= RESUME_PROGRESS:
                        failures = progress = 0
                    yield chunk
                break
            except RegistryError as error:
                failures += 1
                progress = 0
                self._retry.pause(failures, error)
        if hasher.hexdigest() != digest.hex:
            raise CorruptBlob(f"cannot {what}: the bytes that came have another digest, sha256:{hasher.hexdigest()}")

    def has_blob(self, repository: str, digest: OciDigest) -> bool:
        what = f"look up blob {digest} of {self.host}/{repository}"
        path = _path(repository, f"blobs/{digest}")
        # A redirect to the storage is a yes. Following it with HEAD fails where the signed URL is for GET only.
        wanted = (200, 301, 302, 303, 307, 308, 404)
        response = self._retry.run(lambda: self._send("HEAD", path, repository, what, wanted=wanted, follow=False))
        self._finish(response, what)
        return response.status != 404

    def mount_blob(self, repository: str, digest: OciDigest, from_repository: str) -> bool:
        """Take a blob over from another repository of this registry; False when it has to be uploaded instead."""
        what = f"mount blob {digest} in {self.host}/{repository}"
        path = _path(repository, f"blobs/uploads/?mount={digest}&from={quote(from_repository, safe='')}")
        if not is_repository(from_repository):
            raise InvalidReference(f"not a repository: {from_repository[:100]!r}")
        wanted = (201, 202, 400, 404, 405)
        scopes = (f"repository:{repository}:pull,push", f"repository:{from_repository}:pull")
        try:
            response = self._retry.run(lambda: self._send("POST", path, repository, what, wanted=wanted, scopes=scopes))
        except RegistryDenied:
            return False  # perhaps only for the other repository; a real refusal comes again from the upload
        self._finish(response, what)
        location = response.headers.get("Location", "")
        if response.status == 202 and location:
            self._cancel(repository, self._located(path, location, what), what)
        return response.status == 201

    def upload_blob(
        self, repository: str, digest: OciDigest, size: int, open_chunks: Callable[[], Iterable[bytes]]
    ) -> None:
        """Push a blob in one piece; `open_chunks` is called anew for each try and must give `size` bytes."""
        what = f"push blob {digest} to {self.host}/{repository}"
        start = _path(repository, "blobs/uploads/")

        def once() -> None:
            begun = self._send("POST", start, repository, what, push=True, wanted=(202,))
            self._finish(begun, what)
            url = self._located(start, begun.headers.get("Location", ""), what)
            url += f"{'&' if '?' in url else '?'}digest={quote(digest, safe='')}"
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            try:
                ended = self._send(
                    "PUT", url, repository, what,
                    push=True, wanted=(201, 202, 204), headers=headers,
                    body=lambda: _counted(open_chunks(), size, what),
                )  # fmt: skip
                self._finish(ended, what)
            except RegistryError as error:
                # The upload was forgotten, or another replica of the registry answered: begin again.
                error.transient = error.transient or error.status in (404, 416)
                raise

        self._retry.run(once)

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> OciDigest:
        """Push a manifest or index under a tag or its digest; all that it names must be there before."""
        what = f"push {self._name(repository, reference)}"
        path = _manifest_path(repository, reference)
        digest = OciDigest(f"sha256:{hashlib.sha256(data).hexdigest()}")
        headers = {"Content-Type": media_type}

        def once() -> None:
            response = self._send(
                "PUT", path, repository, what, push=True, wanted=(200, 201, 202), headers=headers, body=data
            )
            self._finish(response, what)

        self._retry.run(once)
        return digest

    def list_tags(self, repository: str) -> list[str]:
        """All tags of a repository in the registry's order, at most MOST_TAG_PAGES × TAG_PAGE."""
        what = f"list the tags of {self.host}/{repository}"
        path = _path(repository, f"tags/list?n={TAG_PAGE}")
        found: list[str] = []
        for _ in range(MOST_TAG_PAGES):
            page, link = self._retry.run(functools.partial(self._page, repository, path, what))
            found += page
            following = _NEXT.search(link)
            if not following:
                break
            path = urljoin(path, following[1])
            if not path.startswith("/v2/"):
                raise self._broken(what, "continues its list at another place")
        return found

    def _page(self, repository: str, path: str, what: str) -> tuple[tuple[str, ...], str]:
        response = self._send("GET", path, repository, what, wanted=(200,))
        data = self._transport.read(response, MOST_MANIFEST, what)
        return Document.parse(data, f"the tag list of {self.host}", MOST_MANIFEST).strings("tags"), (
            response.headers.get("Link", "")
        )

    def _blob_from(self, repository: str, digest: OciDigest, offset: int, size: int, what: str) -> Iterator[bytes]:
        """The bytes from `offset` on, exactly to `size`; each call is one request."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and offset == size:
            return
        path = _path(repository, f"blobs/{digest}")
        response = self._send("GET", path, repository, what, headers=headers, wanted=(200, 206))
        skip = 0
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                response.close()
                raise self._broken(what, "sent another range than the one asked for")
        else:
            skip = offset  # it does not know ranges: read again what we have
        position = offset - skip
        announced = response.headers.get("Content-Length", "")
        if announced.isascii() and announced.isdigit() and position + int(announced) != size:
            response.close()
            raise CorruptBlob(f"cannot {what}: it has {position + int(announced)} bytes, not {size}")
        with self._transport.guarded(what):
            try:
                for chunk in response.stream(CHUNK, decode_content=False):
                    position += len(chunk)
                    if position > size:
                        raise CorruptBlob(f"cannot {what}: more than {size} bytes came")
                    fresh = chunk[skip:] if skip else chunk
                    skip -= min(skip, len(chunk))
                    if fresh:
                        yield fresh
                response.release_conn()
            finally:
                response.close()
        if position != size:
            raise RegistryUnreachable(
                f"cannot {what}: only {position} of {size} bytes came", host=self.host, transient=True
            )

    def _send(
        self,
        method: str,
        url: str,
        repository: str,
        what: str,
        *,
        wanted: tuple[int, ...],
        push: bool = False,
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | Callable[[], Iterable[bytes]] | None = None,
        follow: bool = True,
    ) -> BaseHTTPResponse:
        """One authenticated exchange; the exception that fits an answer which is not wanted."""
        scopes = scopes or self._scopes(repository, push)
        home = self._transport.is_home(url)  # uploads may go to a storage elsewhere, which must not see our login
        authorization = self._auth.header(scopes) if home else ""
        send = functools.partial(self._transport.send, method, url, what, headers=headers, body=body, follow=follow)
        response = send(authorization=authorization)
        if response.status == 401 and home:
            challenges = response.headers.getlist("WWW-Authenticate")
            self._finish(response, what)
            response = send(authorization=self._auth.answer(challenges, scopes, authorization, what))
        if response.status in wanted:
            return response
        refusal = self._transport.read(response, MOST_ERROR_BODY, what)
        if "DIGEST_INVALID" in error_codes(refusal):
            raise CorruptBlob(f"cannot {what}: {self.host} received bytes with another digest")
        raise from_answer(what, response.status, response.headers, refusal, host=self.host, repository=repository)

    def _scopes(self, repository: str, push: bool) -> tuple[str, ...]:
        both = (f"repository:{repository}:pull,push",)
        return both if push or self._auth.holds(both) else (f"repository:{repository}:pull",)

    def _cancel(self, repository: str, url: str, what: str) -> None:
        """Give up an upload that nobody will use; the registry removes it by itself when this fails."""
        try:
            self._finish(self._send("DELETE", url, repository, what, push=True, wanted=(200, 202, 204, 404)), what)
        except RegistryError:
            return

    def _finish(self, response: BaseHTTPResponse, what: str) -> None:
        """Read what is left, so that the connection can be used again."""
        self._transport.read(response, MOST_ERROR_BODY, what)

    def _located(self, path: str, location: str, what: str) -> str:
        """Where an upload goes on: the Location header, relative or absolute, never less safe than the registry."""
        base = self._transport.base()
        if not location:
            raise self._broken(what, "gave no place to upload to")
        try:
            url = urljoin(urljoin(base, path), location)
            scheme = urlsplit(url).scheme
        except ValueError:
            raise self._broken(what, "gave a place to upload to that is no URL") from None
        if scheme == "http" and base.startswith("https:"):
            # Registries behind a proxy that ends TLS do not know that they are asked over https.
            url = f"https:{url.removeprefix('http:')}"
        elif scheme not in ("http", "https"):
            raise self._broken(what, "gave a place to upload to that is no URL")
        return url

    def _name(self, repository: str, reference: str) -> str:
        return f"{self.host}/{repository}{'@' if ':' in reference else ':'}{reference}"

    def _broken(self, what: str, reason: str) -> RegistryError:
        return RegistryError(f"cannot {what}: {self.host} {reason}", host=self.host)


def _path(repository: str, rest: str) -> str:
    if not is_repository(repository):
        raise InvalidReference(f"not a repository: {repository[:100]!r}")
    return f"/v2/{repository}/{rest}"


def _manifest_path(repository: str, reference: str) -> str:
    if not is_tag(reference):
        reference = OciDigest(reference)
    return _path(repository, f"manifests/{reference}")


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(MANIFEST_TYPES)}


def _media_type(response: BaseHTTPResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _counted(chunks: Iterable[bytes], size: int, what: str) -> Iterator[bytes]:
    """The chunks; CorruptBlob before a byte too many, or at an end that comes too early."""
    count = 0
    try:
        for chunk in chunks:
            count += len(chunk)
            if count > size:
                break
            yield chunk
    except OSError as error:  # ours, not the connection's: trying again would not help
        raise EnvironmentProblem(f"cannot {what}: reading it failed: {error.strerror}") from error
    if count != size:
        raise CorruptBlob(f"cannot {what}: the blob does not have {size} bytes")
