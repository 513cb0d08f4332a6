"""Identity: a worker's own Ed25519 key, and how its signatures are checked."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING

from cache import encoding
from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
"""Of a public key."""
_FORM = re.compile(rb"[0-9a-f]{64}\n?")


class Identity:
    """public: 32 bytes, which everybody may know."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def load(cls, path: str) -> Identity:
        """The key in a file, which is made at the first time. Raises EnvironmentProblem."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            data = _read(path)
            if data is None:
                _make(path, Ed25519PrivateKey.generate().private_bytes_raw())
                data = _read(path)
        except OSError as error:
            raise EnvironmentProblem(f"cannot keep the worker's key in {path}: {error.strerror}") from None
        if data is None or not _FORM.fullmatch(data):
            hint = "remove the file; a new key is made, which whoever trusts this worker has to be told"
            raise EnvironmentProblem(f"{path} does not hold a worker's key", hint=hint)
        return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(data.decode())))

    def sign(self, parts: Sequence[bytes | str]) -> bytes:
        """64 bytes, over the parts in this order."""
        return self._key.sign(_text(parts))

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)


def verify(public: bytes, signature: bytes, parts: Sequence[bytes | str]) -> bool:
    """Whether the holder of the key signed the parts; also false for what is no key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _text(parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """`ed25519:` and the key in base64 without padding, as people write it into settings."""
    return f"ed25519:{base64.b64encode(public).decode().rstrip('=')}"


def public_key(fingerprint: str) -> bytes:
    """The key of a fingerprint, 32 bytes. ValueError for what is none."""
    name, colon, text = fingerprint.partition(":")
    key = base64.b64decode(f"{text}=", validate=True)
    if not colon or name != "ed25519" or len(key) != KEY_BYTES:
        raise ValueError(f"{fingerprint[:80]!r} is no fingerprint of a key")
    return key


def _text(parts: Sequence[bytes | str]) -> bytes:
    """What is signed: a canonical JSON list; bytes stand there as hex."""
    return encoding.canonical([part.hex() if isinstance(part, bytes) else part for part in parts])


def _read(path: str) -> bytes | None:
    """None if there is no such file. Raises OSError, EnvironmentProblem if others may read it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise EnvironmentProblem(
                f"the worker's key in {path} can be read by others, so that anybody could pass for this worker",
                hint="remove the file, and a new key is made; if nobody has seen it, chown and chmod 600 it",
            )
        return file.read(100)


def _make(path: str, key: bytes) -> None:
    """Whole or not at all, and the first one stays. Raises OSError."""
    fresh = f"{path}.{os.urandom(4).hex()}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(f"{key.hex()}\n".encode())
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        os.unlink(fresh)
