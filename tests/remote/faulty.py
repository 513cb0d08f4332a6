"""A proxy that breaks what passes, by a seed: it cuts, delays, truncates and flips bits."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time

PIECE = 8 << 10
KINDS = ("cut", "truncate", "flip", "delay", "pass")
LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket that is reset when it is closed."""


class Fault:
    """What happens to one direction of one connection. at: bytes until it does, the first time or the only one."""

    def __init__(self, dice: random.Random, kind: str) -> None:
        self.kind = kind
        self._dice = dice
        # Early and late ones alike: a greeting is some hundred bytes, a build of the tests moves some hundred thousand.
        self.at = int(10 ** dice.uniform(1.5, 5.5))
        self.seconds = dice.uniform(0.001, 0.02)
        """Before each piece: 8 MB a second to 400 KB a second."""
        self._passed = 0

    def work(self, data: bytes) -> tuple[bytes, bool]:
        """(what is passed on, whether that was the last)."""
        start, self._passed = self._passed, self._passed + len(data)
        if self.kind == "delay":
            time.sleep(self.seconds)
        if self._passed <= self.at or self.kind in ("delay", "pass"):
            return data, False
        if self.kind in ("cut", "truncate"):
            return data[: max(0, self.at - start)], True
        changed = bytearray(data)
        while self.at < self._passed:
            changed[self.at - start] ^= 1 << self._dice.randrange(8)
            self.at += 1 + int(self._dice.expovariate(1 / 20_000))
        return bytes(changed), False


class FaultyProxy:
    """Between clients and a server. Each connection has faults of its own; done: those that happened."""

    def __init__(self, port: int, seed: int, *kinds: str) -> None:
        self._target = port
        self._dice = random.Random(seed)
        self._kinds = kinds or KINDS
        self.done: list[str] = []
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                kind = self._dice.choice(self._kinds)
                self._start(self._pass, source, target, Fault(random.Random(self._dice.random()), kind))

    def _pass(self, source: socket.socket, target: socket.socket, fault: Fault) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE):
                given, last = fault.work(data)
                if given != data or last or fault.kind == "delay":
                    self.done.append(fault.kind)
                target.sendall(given)
                if last:
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                if fault.kind == "cut":
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)
