"""LeaseLine: what a build gives the holder of one lease alone: secrets, proxies, and connections to ssh agents."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import socket
import threading
from typing import TYPE_CHECKING

from cache.errors import CorruptBlob
from worker.fleet.channels import AGENT, CHUNK, CONNECTIONS, SECRETS, WAITING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from buildgraph.v1 import fleet_pb2

    from compiler.fleet.link import Link


class LeaseLine:
    """From the dispatcher's thread, which never waits; threads of its own speak with agents.

    A channel is one connection. One that has ended, or of which a message was lost, is not opened again.
    """

    def __init__(
        self,
        started: fleet_pb2.ActionStarted,
        namespace: str,
        agents: Mapping[str, str],
        link: Link,
    ) -> None:
        """started: checked already. agents: id → socket. Raises CorruptBlob for a key that is none."""
        from worker.fleet.sealing import ClientSeal

        self._lease = started.lease
        self._action = {"namespace": namespace, "key": started.key}
        self._seal = ClientSeal(started.lease, started.seal_key)
        self._agents = agents
        self._send, self._room = link.seal, link.wait_for_room
        self._lock = threading.Lock()
        self._given: list[fleet_pb2.Sealed] = []
        self._ended = False
        self._known: set[str] = set()
        """Channels that there were; only what the worker sealed adds to them, and it seals so many of a lease."""
        self._open: dict[str, tuple[socket.socket, queue.Queue[bytes | None]]] = {}

    def give(self, secrets: Mapping[str, bytes], proxies: Mapping[str, str]) -> None:
        """The values of secrets by id, and proxy variables; comes first, also if there are none. It says which action
        it is for, and which agents that may ask: a worker believes no server in that."""
        values = {name: base64.b64encode(value).decode() for name, value in secrets.items()}
        said = {**self._action, "secrets": values, "proxies": dict(proxies), "agents": sorted(self._agents)}
        data = json.dumps(said, sort_keys=True).encode()
        self._given = [self._seal.seal(SECRETS, data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]
        self.begin_again()

    def begin_again(self) -> None:
        """The lease is told once more, by a new stream perhaps: the worker gets the same messages, since it may have
        lost some, and takes those that it lacks; a line that has ended is open again."""
        self._ended = False
        for sealed in self._given:
            self._send(sealed)
        self._end(SECRETS)

    def take(self, sealed: fleet_pb2.Sealed) -> None:
        """What the worker says to an agent. What was not sealed for us, or does not follow, is the connection's end."""
        channel = sealed.channel
        found = None if self._ended else self._open.get(channel)
        try:
            if sealed.end:
                if found is not None:
                    found[1].put_nowait(None)
                return
            data = self._seal.open(sealed)
            found = found or self._connect(channel)
            if found is not None:
                found[1].put_nowait(data)
                return
        except (queue.Full, CorruptBlob):
            pass
        if not self._drop(channel):  # of one that was open its thread tells the end
            self._end(channel)

    def _connect(self, channel: str) -> tuple[socket.socket, queue.Queue[bytes | None]] | None:
        agent = self._agents.get(channel.removeprefix(AGENT).rpartition(":")[0]) if channel.startswith(AGENT) else None
        is_new = channel not in self._known
        self._known.add(channel)
        if agent is None or not is_new or self._ended or len(self._open) >= CONNECTIONS:
            return None
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(agent)
        except OSError:
            connection.close()
            return None
        outgoing: queue.Queue[bytes | None] = queue.Queue(WAITING)
        with self._lock:
            self._open[channel] = found = connection, outgoing
        threading.Thread(target=self._pump, args=(channel, connection), name="ssh-agent", daemon=True).start()
        threading.Thread(target=self._ask, args=found, name="ssh-agent", daemon=True).start()
        return found

    @staticmethod
    def _ask(connection: socket.socket, outgoing: queue.Queue[bytes | None]) -> None:
        """What the worker says goes to the agent."""
        with contextlib.suppress(OSError):
            while (data := outgoing.get()) is not None:
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

    def _pump(self, channel: str, connection: socket.socket) -> None:
        """What the agent answers. It may be much more than it was asked, so that nothing is read that has no room."""
        with contextlib.suppress(OSError):
            while self._room() and (data := connection.recv(CHUNK)):
                self._put(channel, data)
        self._drop(channel)
        self._room()  # the end is for a new stream, if the old one broke
        self._end(channel)

    def _drop(self, channel: str) -> bool:
        """Whether there was such a connection."""
        with self._lock:
            found = self._open.pop(channel, None)
        if found is None:
            return False
        connection, outgoing = found
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        with contextlib.suppress(queue.Full):  # then its thread does not wait for more
            outgoing.put_nowait(None)
        return True

    def _put(self, channel: str, data: bytes) -> None:
        with self._lock:  # messages of a channel are counted: they leave in the order in which they are sealed
            self._send(self._seal.seal(channel, data))

    def _end(self, channel: str) -> None:
        from buildgraph.v1 import fleet_pb2

        with self._lock:
            self._send(fleet_pb2.Sealed(lease=self._lease, channel=channel, end=True))

    def close(self) -> None:
        """The lease is over, as far as is known, or its stream broke: it opens nothing until it is told again."""
        self._ended = True
        for channel in list(self._open):
            self._drop(channel)
