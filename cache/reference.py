"""Reference: the name of an image as people write it, taken apart by docker's rules."""

from __future__ import annotations

import re
from typing import NamedTuple

from cache.digest import OciDigest
from cache.errors import CorruptBlob, UsageError

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"
MOST_REPOSITORY = 255
"""Characters of a repository's name (github.com/distribution/reference, RepositoryNameTotalLengthMax)."""
_MOST_TEXT = 2048
"""Beyond any host, repository, tag and digest together; keeps the patterns below away from novels."""

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class InvalidReference(UsageError):
    """A text that names no image."""


def is_repository(text: str) -> bool:
    """Whether the text is the name of a repository, without host, tag and digest."""
    return len(text) <= MOST_REPOSITORY and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


class Reference(NamedTuple):
    """Where an image is: registry host (with port), repository, and a tag, a digest or both.

    With both, the digest decides and the tag is only for people. At least one of them is always there.
    """

    host: str
    repository: str
    tag: str | None = None
    digest: OciDigest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:…]`; InvalidReference with the reason for anything else."""
        if not text or len(text) > _MOST_TEXT:
            raise InvalidReference("an image name is empty" if not text else f"image name too long: {text[:60]!r}…")
        name, at, digest_text = text.partition("@")
        digest = None
        if at:
            try:
                digest = OciDigest(digest_text)
            except CorruptBlob:
                raise InvalidReference(
                    f"invalid image name {text!r}: {digest_text!r} is not sha256: and 64 lower-case hex digits"
                ) from None
        if _IDENTIFIER.fullmatch(name):
            raise InvalidReference(f"invalid image name {text!r}: 64 hex digits are an image's id, not a name")
        host, repository = _split_host(name)
        repository, colon, tag_text = repository.partition(":")
        if colon and not is_tag(tag_text):
            raise InvalidReference(
                f"invalid image name {text!r}: {tag_text!r} is no tag (letters, digits, '_', '.', '-', at most 128)"
            )
        if host == "index.docker.io":
            host = DEFAULT_HOST
        if host == DEFAULT_HOST and "/" not in repository:
            repository = f"library/{repository}"
        _check_name(text, host, repository)
        tag = tag_text if colon else None
        return cls(host, repository, tag if tag or digest else DEFAULT_TAG, digest)

    @property
    def locator(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def familiar(self) -> str:
        """The shortest text that `parse` reads as this reference, but with the tag spelled out."""
        name = self.repository
        if self.host == DEFAULT_HOST:
            name = name.removeprefix("library/") if name.count("/") == 1 else name
            first = name.partition("/")[0] if "/" in name else ""
            # A first component that looks like a host would be read as one.
            keep = "." in first or first == "localhost"
        else:
            keep = True
        return (f"{self.host}/{self.repository}" if keep else name) + self._suffix()

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}{self._suffix()}"

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _split_host(name: str) -> tuple[str, str]:
    """Docker's rule: what stands before the first `/` is a host if it has a `.` or `:` or is `localhost`."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DEFAULT_HOST, name


def _check_name(text: str, host: str, repository: str) -> None:
    if not _HOST.fullmatch(host):
        hint = ""
        if "://" in text:
            hint = f"what has a scheme gets a name with --build-context NAME={text}, which FROM and --from can use"
        raise InvalidReference(f"invalid image name {text!r}: {host!r} is no host name", hint=hint)
    if len(repository) > MOST_REPOSITORY:
        raise InvalidReference(f"invalid image name {text[:60]!r}…: longer than {MOST_REPOSITORY} characters")
    if is_repository(repository):
        return
    if is_repository(repository.lower()):
        raise InvalidReference(
            f"invalid image name {text!r}: the repository must be lower case",
            hint=f"write {repository.removeprefix('library/').lower()!r}",
        )
    raise InvalidReference(
        f"invalid image name {text!r}: a repository is made of lower-case letters and digits, "
        "separated by '.', '_', '__', '-' or '/'"
    )
