"""LeaseLine: what a build gives the holder of one lease alone: secrets, proxies, and connections to ssh agents."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from buildgraph.v1 import fleet_pb2

SECRETS = "secrets"
AGENT = "ssh:"
"""Beginning of the channels of connections to agents: `ssh:ID:N`."""
CHUNK = 64 << 10
"""Bytes of one message, well below what may be sealed at once."""
CONNECTIONS = 32
"""To agents, that one lease may hold at once; ssh needs one each."""


class LeaseLine:
    """From the dispatcher's thread, but for what agents answer, which threads of its own send."""

    def __init__(
        self,
        started: fleet_pb2.ActionStarted,
        namespace: str,
        agents: Mapping[str, str],
        send: Callable[[fleet_pb2.Sealed], None],
    ) -> None:
        """started: checked already. agents: id → socket. Raises CorruptBlob for a key that is none."""
        from worker.fleet.sealing import ClientSeal

        self._lease = started.lease
        self._action = {"namespace": namespace, "key": started.key}
        self._seal = ClientSeal(started.lease, started.seal_key)
        self._agents = agents
        self._send = send
        self._lock = threading.Lock()
        self._open: dict[str, socket.socket] = {}

    def give(self, secrets: Mapping[str, bytes], proxies: Mapping[str, str]) -> None:
        """The values of secrets by id, and proxy variables; comes first, also if there are none. It says which action
        it is for, and which agents that may ask: a worker believes no server in that."""
        values = {name: base64.b64encode(value).decode() for name, value in secrets.items()}
        said = {**self._action, "secrets": values, "proxies": dict(proxies), "agents": sorted(self._agents)}
        data = json.dumps(said, sort_keys=True).encode()
        for start in range(0, len(data), CHUNK):
            self._put(SECRETS, data[start : start + CHUNK])
        self._end(SECRETS)

    def take(self, sealed: fleet_pb2.Sealed) -> None:
        """What the worker says to an agent. Raises CorruptBlob for what was not sealed for us."""
        channel = sealed.channel
        if sealed.end:
            self._shut(channel)
            return
        data = self._seal.open(sealed)
        connection = self._open.get(channel) or self._connect(channel)
        if connection is None:
            self._end(channel)
            return
        try:
            connection.sendall(data)
        except OSError:
            self._drop(channel)

    def _connect(self, channel: str) -> socket.socket | None:
        agent = self._agents.get(channel.removeprefix(AGENT).rpartition(":")[0]) if channel.startswith(AGENT) else None
        with self._lock:
            if agent is None or len(self._open) >= CONNECTIONS:
                return None
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(agent)
        except OSError:
            connection.close()
            return None
        with self._lock:
            self._open[channel] = connection
        threading.Thread(target=self._pump, args=(channel, connection), name="ssh-agent", daemon=True).start()
        return connection

    def _pump(self, channel: str, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(CHUNK):
                self._put(channel, data)
        self._end(channel)
        self._drop(channel)

    def _shut(self, channel: str) -> None:
        connection = self._open.get(channel)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def _drop(self, channel: str) -> None:
        with self._lock:
            connection = self._open.pop(channel, None)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _put(self, channel: str, data: bytes) -> None:
        with self._lock:  # messages of a channel are counted: they leave in the order in which they are sealed
            self._send(self._seal.seal(channel, data))

    def _end(self, channel: str) -> None:
        from buildgraph.v1 import fleet_pb2

        with self._lock:
            self._send(fleet_pb2.Sealed(lease=self._lease, channel=channel, end=True))

    def close(self) -> None:
        """The lease is over."""
        for channel in list(self._open):
            self._drop(channel)
