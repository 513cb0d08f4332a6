"""Sealing: bytes between a build and the holder of one lease, which the scheduler carries and cannot read.

Both ends make an X25519 key for the lease alone. The worker's is signed by the worker; the client's stands in front of
its first message. Each channel has a key of its own in each direction, by HKDF-SHA256 from the shared secret, the lease
and both public keys, and counts its messages: the count is the nonce of ChaCha20-Poly1305. So what is lost, repeated,
changed, or comes in another order, by another channel or in another lease does not open.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cache.errors import CorruptBlob

if TYPE_CHECKING:
    from buildgraph.v1 import fleet_pb2
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

CHUNK = 256 << 10
"""Bytes that are sealed at once, at most."""
MAX_CHANNELS = 10_000
"""Channels of one lease in one direction; each connection to an agent is one."""
KEY_BYTES = 32
_TO_WORKER, _TO_CLIENT = b"to worker", b"to client"


class _Direction:
    """Seals or opens what goes one way. secret: all that is derived comes from it."""

    def __init__(self, secret: bytes, name: bytes) -> None:
        self._secret = secret
        self._name = name
        self._channels: dict[str, tuple[ChaCha20Poly1305, int]] = {}

    def seal(self, channel: str, data: bytes) -> bytes:
        cipher, count = self._next(channel)
        sealed = cipher.encrypt(_nonce(count), data, channel.encode())
        self._channels[channel] = cipher, count + 1
        return sealed

    def open(self, channel: str, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        cipher, count = self._next(channel)
        try:
            data = cipher.decrypt(_nonce(count), sealed, channel.encode())
        except InvalidTag:
            text = "a message was not sealed for this lease, or is not the next one of its channel"
            raise CorruptBlob(text) from None
        self._channels[channel] = cipher, count + 1
        return data

    def _next(self, channel: str) -> tuple[ChaCha20Poly1305, int]:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        known = self._channels.get(channel)
        if known is not None:
            return known
        if len(self._channels) >= MAX_CHANNELS:
            raise CorruptBlob(f"a lease has more than {MAX_CHANNELS} channels")
        # Kept by `seal` and `open` when a message worked, so that forged ones make nothing that stays.
        return ChaCha20Poly1305(_derive(self._secret, [b"channel", self._name, channel.encode()])), 0


class _Seal:
    """One end. Threads may call all methods at the same time; what is sealed must be sent in that order."""

    def __init__(self, lease: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._lease = lease
        self._key: X25519PrivateKey = X25519PrivateKey.generate()
        self._lock = threading.Lock()
        self._out: _Direction | None = None
        self._in: _Direction | None = None

    def _agree(self, other: bytes) -> bytes:
        """The secret that only both ends can know. Raises CorruptBlob for what is no key."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError:
            raise CorruptBlob("the other end of a lease showed something that is no key") from None

    def _sealed(self, channel: str, data: bytes) -> fleet_pb2.Sealed:
        from buildgraph.v1 import fleet_pb2

        return fleet_pb2.Sealed(lease=self._lease, channel=channel, data=data)

    def _check(self, sealed: fleet_pb2.Sealed) -> None:
        if sealed.lease != self._lease:
            raise CorruptBlob("a sealed message is of another lease")


class LeaseSeal(_Seal):
    """The worker's end. public_key: 32 bytes, to be signed."""

    def __init__(self, lease: str) -> None:
        super().__init__(lease)
        self.public_key = self._key.public_key().public_bytes_raw()

    def open(self, sealed: fleet_pb2.Sealed) -> bytes:
        """What the client sealed. Raises CorruptBlob."""
        self._check(sealed)
        with self._lock:
            if self._in is not None:
                return self._in.open(sealed.channel, sealed.data)
            # The first message; the key in front counts only if what follows was sealed with it.
            client, data = sealed.data[:KEY_BYTES], sealed.data[KEY_BYTES:]
            secret = _derive(self._agree(client), [b"lease", self._lease.encode(), self.public_key, client])
            incoming = _Direction(secret, _TO_WORKER)
            opened = incoming.open(sealed.channel, data)
            self._in, self._out = incoming, _Direction(secret, _TO_CLIENT)
            return opened

    def seal(self, channel: str, data: bytes) -> fleet_pb2.Sealed:
        """For the client, which must have sent something. data: CHUNK bytes at most."""
        _check_size(data)
        with self._lock:
            if self._out is None:
                raise CorruptBlob("nothing can be sealed before the client has sent its key")
            return self._sealed(channel, self._out.seal(channel, data))


class ClientSeal(_Seal):
    """The client's end. seal_key: the worker's public key, whose signature was checked."""

    def __init__(self, lease: str, seal_key: bytes) -> None:
        """Raises CorruptBlob for a key that is none."""
        super().__init__(lease)
        mine = self._key.public_key().public_bytes_raw()
        secret = _derive(self._agree(seal_key), [b"lease", lease.encode(), seal_key, mine])
        self._in, self._out = _Direction(secret, _TO_CLIENT), _Direction(secret, _TO_WORKER)
        self._front = mine

    def open(self, sealed: fleet_pb2.Sealed) -> bytes:
        """What the worker sealed. Raises CorruptBlob."""
        self._check(sealed)
        with self._lock:
            assert self._in is not None
            return self._in.open(sealed.channel, sealed.data)

    def seal(self, channel: str, data: bytes) -> fleet_pb2.Sealed:
        """For the worker. data: CHUNK bytes at most."""
        _check_size(data)
        with self._lock:
            assert self._out is not None
            front, self._front = self._front, b""
            return self._sealed(channel, front + self._out.seal(channel, data))


def _check_size(data: bytes) -> None:
    if len(data) > CHUNK:
        raise ValueError(f"{len(data)} bytes are too many to seal at once")


def _nonce(count: int) -> bytes:
    return count.to_bytes(12, "big")


def _derive(secret: bytes, parts: list[bytes]) -> bytes:
    """Another secret for one purpose; lengths keep parts apart."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"buildgraph.v1 seal" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)
