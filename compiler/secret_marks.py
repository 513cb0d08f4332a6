"""SecretMarks: what stands in a key for a secret's value: a keyed hash that only this store's own key can make."""

from __future__ import annotations

import fcntl
import hmac
import os
import time
from typing import TYPE_CHECKING

from cache.errors import StoreProblem

if TYPE_CHECKING:
    from compiler.dockerfile.policy import Policy
    from compiler.options import BuildOptions

KEY_FILE = "secret-key"
"""In the store's directory, mode 0600; it never leaves the machine, so nobody else can try values against a mark."""
KEY_BYTES = 32
LOCK_SECONDS = 5.0
"""How long to wait for another build that is making the key; microseconds are normal."""
ABSENT = "absent"
"""The mark of a secret that the build was not given."""


def marks_of(policy: Policy, options: BuildOptions, store_directory: str) -> list[list[str]]:
    """`[[id, mark], …]` of the secrets that the policy wants in the key, sorted by id; [] for none.

    Reads the values where the options say they are. Raises UsageError, EnvironmentProblem; never with a value in it.
    """
    if not policy.secret_in_key:
        return []
    from compiler.build import read_secret  # build reaches whoever needs marks

    marks = SecretMarks(store_directory)
    sources = {source.id: source for source in options.secrets}
    return [
        [name, marks.mark(name, read_secret(sources[name]) if name in sources else None)]
        for name in sorted(policy.secret_in_key)
    ]


class SecretMarks:
    """Makes marks with the key of one store, which is made when the first mark needs it."""

    def __init__(self, store_directory: str) -> None:
        self._path = os.path.join(store_directory, KEY_FILE)
        self._key = b""

    def mark(self, secret_id: str, value: bytes | None) -> str:
        """HMAC-SHA256 in hex of the secret's id and value; ABSENT for None. Raises StoreProblem.

        A plain hash would let whoever sees a record try out likely values. The id is in it so that two secrets of the
        same value do not show it.
        """
        if value is None:
            return ABSENT
        self._key = self._key or self._read()
        return hmac.digest(self._key, secret_id.encode("utf-8", "surrogateescape") + b"\0" + value, "sha256").hex()

    def _read(self) -> bytes:
        """The key, made if there is none. Raises StoreProblem."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                # Whoever comes second to an empty file waits until the first has filled it. One that was killed before
                # that leaves it empty, and the next fills it.
                key = os.pread(fd, KEY_BYTES + 1, 0)
                if not key:
                    _lock(fd)
                    key = os.pread(fd, KEY_BYTES + 1, 0)
                return self._made(fd) if not key else self._checked(key)
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreProblem(f"cannot keep the key for marks of secrets in {self._path}: {error.strerror}") from None

    def _made(self, fd: int) -> bytes:
        key = os.urandom(KEY_BYTES)
        os.pwrite(fd, key, 0)
        os.fsync(fd)
        directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return key

    def _checked(self, key: bytes) -> bytes:
        if len(key) != KEY_BYTES:
            raise StoreProblem(
                f"the key for marks of secrets in {self._path} is damaged",
                hint="remove the file: steps with secret-in-key run once more",
            )
        return key


def _lock(fd: int) -> None:
    """Until the descriptor is closed. Raises TimeoutError, an OSError."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(0, "another build holds it") from None
            time.sleep(0.005)
