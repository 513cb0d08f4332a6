"""Forward an ssh agent into a step: a socket of the step's own, since the agent's may only be opened by its owner."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 32
"""Connections that one step may hold at once; ssh needs one each."""
_CHUNK = 64 << 10


def forward(agent: str, path: str, mode: int, uid: int, gid: int) -> Callable[[], None]:
    """Listen at `path` and pass everything on to the agent's socket; the returned function ends it.

    Raises EnvironmentProblem.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        # A socket's name may only have 107 bytes: go through the directory's descriptor.
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise EnvironmentProblem(f"cannot forward an ssh agent: {error.strerror}") from None
    slots = threading.BoundedSemaphore(CONNECTIONS)
    threading.Thread(target=_accept, args=(listener, agent, slots), name="ssh-agent", daemon=True).start()

    def close() -> None:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with contextlib.suppress(OSError):
            os.unlink(path)

    return close


def _accept(listener: socket.socket, agent: str, slots: threading.BoundedSemaphore) -> None:
    while True:
        slots.acquire()
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, agent, slots), name="ssh-agent", daemon=True).start()


def _serve(client: socket.socket, agent: str, slots: threading.BoundedSemaphore) -> None:
    try:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(agent)
            back = threading.Thread(target=_pump, args=(server, client), name="ssh-agent", daemon=True)
            back.start()
            _pump(client, server)
            back.join()
    except OSError:
        return  # either side went away: the step sees a closed connection
    finally:
        slots.release()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
