"""A wire to a server that can be listened to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

ROOM = 128 << 10
"""Bytes that a wire holds in each direction."""


class Tap:
    """Everything that goes through, in either direction, is in `heard`. passes: unset, it holds everything back.
    rate: bytes a second in each direction, 0 for any number."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._server = host, int(port)
        self._listener = socket.socket()
        # As little as there is on a slow wire: what waits here nobody overtakes.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._heard: dict[int, bytearray] = {}
        self.rate = 0
        self.passes = threading.Event()
        self.passes.set()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def heard(self) -> bytes:
        return b"\n".join(bytes(each) for each in list(self._heard.values()))

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                try:
                    far = socket.create_connection(self._server)
                except OSError:  # the server is away
                    near.close()
                    continue
                self._sockets.append(far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        heard = self._heard[id(one)] = bytearray()
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                heard += data
                self.passes.wait()
                if self.rate:
                    time.sleep(len(data) / self.rate)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.passes.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            each.close()
