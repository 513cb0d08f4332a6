"""WorkerLine: a worker's end of what a build gives one lease: secrets, proxies, and connections to ssh agents."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from buildgraph.v1 import fleet_pb2 as pb

from cache.errors import CorruptBlob, EnvironmentProblem
from worker.fleet.channels import AGENT, CHUNK, CONNECTIONS, SECRETS, WAITING
from worker.fleet.sealing import LeaseSeal
from worker.proxies import checked_proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MAX_SECRETS = 32 << 20
"""Bytes of all secrets of a lease as they come; one has 500 KiB at most."""


class Given(NamedTuple):
    """What a build gives a lease. secrets: id → value. proxies: variables that the command sees. agents: ids of those
    that the command may ask."""

    secrets: dict[str, bytes]
    proxies: dict[str, str]
    agents: tuple[str, ...] = ()


class WorkerLine:
    """Threads may call all methods at the same time. seal_key: to be signed, and shown to the build."""

    def __init__(
        self, lease: str, action: tuple[str, str], send: Callable[[pb.Sealed], bool], room: Callable[[], bool]
    ) -> None:
        """action: its namespace and key. send: without waiting; whether it is on its way. room: waits until something
        can be sent, and says whether."""
        self._lease = lease
        self._action = action
        self._seal = LeaseSeal(lease)
        self.seal_key = self._seal.public_key
        self._send = send
        self._room = room
        self._lock = threading.Lock()
        self._sealing = threading.Lock()
        self._received = bytearray()
        self._complete = threading.Event()
        self._closed = False
        self._number = 0
        self._connections: dict[str, tuple[socket.socket, queue.Queue[bytes | None]]] = {}
        self._listeners: list[socket.socket] = []
        self._directories: list[int] = []

    def take(self, sealed: pb.Sealed) -> None:
        """What comes from the build; never waits. Nothing happens for what was not sealed for this lease."""
        if sealed.channel == SECRETS:
            if not self._complete.is_set():
                self._take_secrets(sealed)
            return
        if sealed.channel == AGENT:  # no connection is called that
            self.hang_up()
            return
        with self._lock:
            connection = self._connections.get(sealed.channel)
        if connection is None:
            return
        try:
            connection[1].put_nowait(None if sealed.end else self._seal.open(sealed))
        except (queue.Full, CorruptBlob):
            self._drop(sealed.channel)

    def _take_secrets(self, sealed: pb.Sealed) -> None:
        if sealed.end:
            self._complete.set()
            return
        with contextlib.suppress(CorruptBlob), self._lock:
            data = self._seal.open(sealed)
            if len(self._received) + len(data) <= MAX_SECRETS:
                self._received += data

    def given(self, seconds: float, cancelled: Callable[[], bool]) -> Given | None:
        """Waited for so long; None if it did not come. Raises CorruptBlob for something else."""
        waited = 0.0
        while not self._complete.wait(_LOOK_SECONDS):
            waited += _LOOK_SECONDS
            if waited >= seconds or cancelled():
                return None
        with self._lock:
            data = bytes(self._received)
            self._received.clear()
        try:
            values = json.loads(data)
            secrets, proxies, agents = values["secrets"].items(), values["proxies"], values["agents"]
            found = {str(name): base64.b64decode(value, validate=True) for name, value in secrets}
            given = Given(found, checked_proxies(proxies), tuple(map(str, agents)))
            action = values["namespace"], values["key"]
        except (ValueError, LookupError, TypeError, AttributeError, binascii.Error):
            raise CorruptBlob("the secrets of the build did not come as they should") from None  # I4: not shown
        if action != self._action:
            raise CorruptBlob("the secrets of the build are for another action")
        return given

    # agents

    def agents(self, names: Collection[str], directory: str) -> dict[str, str]:
        """A socket for each agent that the build has, below a new directory. Raises EnvironmentProblem."""
        if not names:
            return {}
        try:
            os.mkdir(directory, 0o700)
            # A socket's name may only have 107 bytes: go through the directory's descriptor.
            opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._directories.append(opened)
            return {name: self._listen(name, f"/proc/self/fd/{opened}/{number}") for number, name in enumerate(names)}
        except OSError as error:
            raise EnvironmentProblem(f"cannot forward an ssh agent: {error.strerror}") from None

    def _listen(self, name: str, path: str) -> str:
        listener = socket.socket(socket.AF_UNIX)
        self._listeners.append(listener)
        listener.bind(path)
        listener.listen(CONNECTIONS)
        threading.Thread(target=self._accept, args=(listener, name), name="ssh-agent", daemon=True).start()
        return path

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            incoming: queue.Queue[bytes | None] = queue.Queue(WAITING)
            with self._lock:
                full = self._closed or len(self._connections) >= CONNECTIONS
                if not full:
                    self._number += 1
                    channel = f"{AGENT}{name}:{self._number}"
                    self._connections[channel] = connection, incoming
            if full:
                connection.close()
                continue
            for target in (self._pump_out, self._pump_in):
                arguments = (channel, connection, incoming)
                threading.Thread(target=target, args=arguments, name="ssh-agent", daemon=True).start()

    def _pump_out(self, channel: str, connection: socket.socket, _: queue.Queue[bytes | None]) -> None:
        """What ssh says goes to the build; when something of it is lost, the connection ends."""
        whole = False
        with contextlib.suppress(OSError, CorruptBlob):
            while self._room():
                data = connection.recv(CHUNK)
                whole = not data
                with self._sealing:  # in the order in which they are sealed
                    if whole or channel not in self._connections or not self._send(self._seal.seal(channel, data)):
                        break
        if not whole:
            self._drop(channel)
        if not self._closed:
            self._room()  # the end is for a new stream, if the old one broke
        self._send(pb.Sealed(lease=self._lease, channel=channel, end=True))

    def _pump_in(self, channel: str, connection: socket.socket, incoming: queue.Queue[bytes | None]) -> None:
        """What the agent answers; it closes the connection when the build's end does."""
        with contextlib.suppress(OSError):
            while (data := incoming.get()) is not None:
                connection.sendall(data)
        self._drop(channel)

    def _drop(self, channel: str) -> None:
        with self._lock:
            found = self._connections.pop(channel, None)
        if found is None:
            return
        connection, incoming = found
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        with contextlib.suppress(queue.Full):
            incoming.put_nowait(None)

    def hang_up(self) -> None:
        """What was on its way is lost, and with it all connections; the step may make new ones."""
        with self._lock:
            channels = list(self._connections)
        for channel in channels:
            self._drop(channel)

    def close(self) -> None:
        """The lease is over: nothing of it stays in memory."""
        with self._lock:
            self._closed = True
            self._received.clear()
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.hang_up()
        for directory in self._directories:
            os.close(directory)
        self._directories.clear()


_LOOK_SECONDS = 0.05
"""How often the wait for secrets looks whether anybody still wants the result."""
