"""The build's end of the keeper: requests from many threads, answers to each."""

from __future__ import annotations

import array
import errno
import json
import os
import shutil
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.errors import EnvironmentProblem
from worker import keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START_SECONDS = 20.0
"""How long the keeper may take to set up its namespaces; milliseconds are normal."""


FORGOTTEN = 40
"""Images of one request; their paths may be long."""


class BundleFile(NamedTuple):
    """A file of a step's bundle: its bytes, and how it appears in the container."""

    data: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class View(NamedTuple):
    """Layers to mount as one tree. name: the directory of the step that it appears at. lowers: lowest first, each
    {"image", "tar"} or {"directory"}. upper, work: None for a read-only view. devices: device nodes in it work."""

    name: str
    lowers: tuple[dict[str, str], ...]
    upper: str | None = None
    work: str | None = None
    devices: bool = False


class OutOfTime(Exception):
    """A container was killed because it ran longer than it may; never shown."""


class Keeper:
    """Runs containers in the keeper process. Threads may call `start` at the same time."""

    def __init__(self, root: str, *, userxattr: bool, cgroups: bool, probe: keeper.Probe | None = None) -> None:
        """Fork the keeper; call before any thread starts. Raises EnvironmentProblem if this machine forbids it."""
        os.makedirs(root, mode=0o700)
        self.root = root
        self._pid, self._socket = keeper.fork(
            root, userxattr=userxattr, cgroups=cgroups, probe=probe
        )
        self._socket.settimeout(START_SECONDS)
        try:
            ready = json.loads(self._socket.recv(keeper.MESSAGE_LIMIT) or b'{"error": "it ended at once"}')
        except TimeoutError:
            ready = {"error": f"it did not start within {START_SECONDS:.0f} s"}
        if "error" in ready:
            raise EnvironmentProblem(f"cannot isolate build steps: {ready['error']}", hint="run `buildgraph doctor`")
        self.mounts_erofs = bool(ready.get("erofs"))
        self._socket.settimeout(None)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._next = 1
        self._lost = False
        self._reader: threading.Thread | None = None

    def step_directory(self, number: int) -> str:
        """Where the keeper puts the bundle of this step, in its own mount namespace."""
        return os.path.join(self.root, "step", str(number))

    @property
    def state_directory(self) -> str:
        return os.path.join(self.root, "state")

    def new_step(self) -> int:
        with self._lock:
            self._next += 1
            return self._next

    def start(
        self,
        number: int,
        argv: list[str],
        views: list[View],
        output: int,
        files: dict[str, BundleFile],
        seconds: float | None = None,
    ) -> Callable[[], int]:
        """Start `argv` in the step's mounts; the returned function waits for its exit status (negative: the signal).

        output: descriptor for its stdout and stderr. files: name → content, written into the step's directory on a
        tmpfs: the bundle's config and secrets never touch a disk. seconds: after these everything below `argv` is
        killed, and then waiting raises OutOfTime. Both raise EnvironmentProblem.
        """
        fds = [output]
        try:
            for file in files.values():
                fd = os.memfd_create("buildgraph")
                fds.append(fd)
                with open(fd, "wb", closefd=False) as memory:
                    memory.write(file.data)
            numbers = {name: [place, *file[1:]] for place, (name, file) in enumerate(files.items(), 1)}
            request: dict[str, Any] = {"op": "run", "argv": argv, "files": numbers, "seconds": seconds}
            request["views"] = [view._asdict() for view in views]
            reply = self._call(number, request, fds)
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return lambda: _status(reply.result())

    def kill_all(self) -> None:
        """Kill every container; whoever waits for one gets its signal."""
        if not self._lost:
            self._call(self.new_step(), {"op": "kill"}, []).result()

    @property
    def is_lost(self) -> bool:
        """Whether its process has ended: nothing can be run any more."""
        return self._lost

    def kill(self, number: int) -> None:
        """Kill one step, if it runs; whoever waits for it gets OutOfTime."""
        if not self._lost:
            self._call(self.new_step(), {"op": "kill", "step": number}, []).result()

    def forget(self, images: Sequence[str]) -> None:
        """Unmount EROFS images that no step uses any more."""
        for start in range(0, len(images), FORGOTTEN):
            if not self._lost:
                self._call(self.new_step(), {"op": "forget", "images": images[start : start + FORGOTTEN]}, []).result()

    def close(self) -> None:
        """End the keeper; its namespaces, mounts and whatever still runs go with it."""
        with self._lock:
            self._lost = True
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._reader is not None:
            self._reader.join()
        self._socket.close()
        os.waitpid(self._pid, 0)
        shutil.rmtree(self.root, ignore_errors=True)

    def _call(self, number: int, request: dict[str, Any], fds: list[int]) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        message = json.dumps({"id": number, **request}).encode()
        if len(message) > keeper.MESSAGE_LIMIT or len(fds) > keeper.FDS_LIMIT:
            raise EnvironmentProblem("a build step has too many layers, mounts or secrets to start")
        with self._lock:
            if self._lost:
                raise EnvironmentProblem("the process that keeps the build's mounts has ended")
            self._waiting[number] = future
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, name="keeper", daemon=True)
                self._reader.start()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self._socket.sendmsg([message], rights)
            except OSError:
                del self._waiting[number]
                raise EnvironmentProblem("the process that keeps the build's mounts has ended") from None
        return future

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(keeper.MESSAGE_LIMIT)
            except OSError:
                data = b""
            if not data:
                break
            reply = json.loads(data)
            with self._lock:
                future = self._waiting.pop(reply["id"], None)
            if future is not None:
                future.set_result(reply)
        with self._lock:
            self._lost = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_result({"error": "the process that keeps the build's mounts has ended"})


def _status(reply: dict[str, Any]) -> int:
    if "error" in reply:
        full = reply.get("errno") in (errno.ENOSPC, errno.EDQUOT)
        raise EnvironmentProblem(
            f"cannot start a build step: {reply['error']}",
            hint="free some space" if full else "run `buildgraph doctor`",
        )
    if reply.get("late"):
        raise OutOfTime
    return int(reply["status"])
