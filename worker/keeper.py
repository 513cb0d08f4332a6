"""The keeper: a small, single-threaded process that owns every mount and container of a build and dies with it.

It is the first process of a PID namespace and alone in a mount namespace. When the build dies, however it dies, the
kernel kills the keeper, with it everything in its PID namespace, and then nothing holds the mounts any more (I6).
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import select
import shutil
import signal
import socket
import time
from typing import Any, NamedTuple, NoReturn

from worker import mounts
from worker.process_tree import descendants

MESSAGE_LIMIT = 192 << 10
"""Bytes of one request; the kernel's default socket buffer holds 208 KiB. 500 lowers with long paths fit."""
FDS_LIMIT = 64
"""File descriptors of one request: the output, the bundle and the secrets."""
KILL_AGAIN_SECONDS = 0.02
"""How often the processes of a late container are looked for: the runtime may have been just about to start one."""
RUNTIME_SECONDS = 5.0
"""How long the runtime may take to tidy up after its container was killed, before it is killed itself."""
LONGEST_SLEEP = 3600.0
"""Seconds without looking at the clock; poll(2) counts milliseconds in an int."""
OVERLAY_OPTIONS: list[tuple[str, str | None]] = [
    ("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off"),
]  # fmt: skip


class Probe(NamedTuple):
    """image: a small EROFS image. tar: the tar that it points into."""

    image: str
    tar: str


def fork(root: str, *, userxattr: bool, cgroups: bool, probe: Probe | None = None) -> tuple[int, socket.socket]:
    """Start the keeper: its process id, and the socket to talk to it. Call this before any thread starts.

    root: an empty directory that the keeper covers with a tmpfs of its own. userxattr: overlays keep their marks in
    `user.overlay.*`, as an ordinary user's must. cgroups: the runtime needs to see the host's cgroups (runc).
    probe: an EROFS image to try; the first answer says under "erofs" whether this kernel mounts it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            mounts.die_with_parent(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(0)
            _detach(theirs)
            mounts.unshare(mounts.CLONE_NEWNS | mounts.CLONE_NEWPID)
            if os.fork() == 0:
                mounts.die_with_parent(signal.SIGKILL)
                _serve(theirs, root, userxattr, cgroups, probe)
            os.wait()
        except OSError as error:
            _answer(theirs, {"id": 0, "error": str(error), "errno": error.errno})
        finally:
            os._exit(0)
    theirs.close()
    return child, ours


def _detach(theirs: socket.socket) -> None:
    """Leave the terminal's process group, the inherited descriptors and the handlers of the build behind."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    keep = theirs.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, 1 << 20)


def _serve(
    connection: socket.socket, root: str, userxattr: bool, cgroups: bool, probe: Probe | None
) -> NoReturn:
    try:
        _prepare(root, cgroups)
        keeper = _Keeper(connection, root, userxattr)
        _answer(connection, {"id": 0, "erofs": probe is not None and _mounts_erofs(root, probe)})
        keeper.loop()
    except OSError as error:
        _answer(connection, {"id": 0, "error": str(error), "errno": error.errno})
    finally:
        os._exit(0)


def _prepare(root: str, cgroups: bool) -> None:
    """Make the namespace private, give it the PID namespace's /proc and room for bundles."""
    mounts.mount("none", "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount("proc", "/proc", "proc", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
    if not cgroups and os.path.isdir("/sys/fs/cgroup"):
        # Steps get no cgroup; and crun refuses a hybrid hierarchy (v1 with v2 at `unified`) that it can see.
        mounts.mount("none", "/sys/fs/cgroup", "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
    mounts.mount("buildgraph", root, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0700")
    for name in ("state", "lower", "step"):
        os.mkdir(os.path.join(root, name), 0o700)


def _mounts_erofs(root: str, probe: Probe) -> bool:
    target = os.path.join(root, "probe")
    os.mkdir(target)
    try:
        mounts.mount_filesystem("erofs", target, [("source", probe.image), ("device", probe.tar)])
        mounts.unmount(target)
    except OSError:
        return False
    return True


class _Running:
    """A container. deadline: monotonic seconds. late: whether that has passed."""

    def __init__(self, number: int, mounted: list[str], seconds: float | None) -> None:
        self.number = number
        self.mounted = mounted
        self.deadline = float("inf") if seconds is None else time.monotonic() + seconds
        self.late = False


class _Keeper:
    """Answers requests in the order in which their containers end."""

    def __init__(self, connection: socket.socket, root: str, userxattr: bool) -> None:
        self._connection = connection
        self._root = root
        self._overlay = [*OVERLAY_OPTIONS, ("userxattr", None)] if userxattr else OVERLAY_OPTIONS
        self._lowers: dict[str, str] = {}
        self._mounted = 0
        self._running: dict[int, _Running] = {}

    def loop(self) -> None:
        readable, writable = os.pipe()
        os.set_blocking(writable, False)
        os.set_blocking(readable, False)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(readable, select.POLLIN)
        while True:
            for fd, _ in poll.poll(self._kill_late()):
                if fd == readable:
                    with contextlib.suppress(BlockingIOError):
                        os.read(readable, 4096)
                    self._reap()
                elif not self._receive():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(-1, signal.SIGKILL)
                    return

    def _receive(self) -> bool:
        fds = array.array("i")
        data, ancillary, _, _ = self._connection.recvmsg(MESSAGE_LIMIT, socket.CMSG_LEN(FDS_LIMIT * fds.itemsize))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        if not data:
            return False
        request = json.loads(data)
        try:
            if request["op"] == "kill":
                self._kill(request.get("step"))
                _answer(self._connection, {"id": request["id"]})
            elif request["op"] == "forget":
                self._forget(request["images"])
                _answer(self._connection, {"id": request["id"]})
            else:
                self._run(request, fds)
        except OSError as error:
            _answer(self._connection, {"id": request["id"], "error": str(error), "errno": error.errno})
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _run(self, request: dict[str, Any], fds: array.array[int]) -> None:
        """Mount what the step needs and start its container; `_reap` answers when it ends."""
        step = os.path.join(self._root, "step", str(request["id"]))
        os.mkdir(step, 0o700)
        mounted: list[str] = []
        try:
            for view in request["views"]:
                target = os.path.join(step, view["name"])
                os.mkdir(target)
                mounted.append(target)
                self._mount_view(view, target)
            for name, (number, mode, uid, gid) in request["files"].items():
                _copy(fds[number], os.path.join(step, name), mode, uid, gid)
            pid = os.posix_spawn(
                request["argv"][0],
                request["argv"],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, fds[0], 1),
                    (os.POSIX_SPAWN_DUP2, fds[0], 2),
                ],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ],
            )
        except BaseException:
            self._clear(step, mounted)
            raise
        self._running[pid] = _Running(request["id"], mounted, request["seconds"])

    def _mount_view(self, view: dict[str, Any], target: str) -> None:
        """An overlay over the view's layers, lowest first; read-only if it has no upper directory."""
        lowers = [self._lower(lower) for lower in view["lowers"]]
        # A second fence against device nodes of images (the first is in the snapshots; crun takes this one off /).
        attributes = 0 if view["devices"] else mounts.MOUNT_ATTR_NODEV
        options = [("lowerdir+", path) for path in reversed(lowers)]
        if view["upper"] is None:
            attributes |= mounts.MOUNT_ATTR_RDONLY
            if len(lowers) == 1:
                # overlayfs wants two layers if none can be written.
                mounts.mount(lowers[0], target, None, mounts.MS_BIND)
                try:
                    mounts.restrict(target, attributes)
                except OSError as error:
                    # Linux 5.11, or an old filter of system calls around us: then only the runtime makes it read-only.
                    if error.errno not in (errno.ENOSYS, errno.EPERM):
                        raise
                return
        else:
            options += [("upperdir", view["upper"]), ("workdir", view["work"])]
        # volatile: unmounting syncs nothing (350 ms saved); what is kept is synced when it is published.
        extra: list[tuple[str, str | None]] = [] if view["upper"] is None else [("volatile", None)]
        mounts.mount_filesystem("overlay", target, [*options, *extra, *self._overlay], attributes)

    def _lower(self, lower: dict[str, str]) -> str:
        """Where a layer is mounted; an EROFS image is mounted once for the whole build."""
        if "directory" in lower:
            return lower["directory"]
        path = self._lowers.get(lower["image"])
        if path is None:
            self._mounted += 1
            path = os.path.join(self._root, "lower", str(self._mounted))
            os.mkdir(path)
            options = [("source", lower["image"]), ("device", lower["tar"])]
            mounts.mount_filesystem("erofs", path, list(options), mounts.MOUNT_ATTR_RDONLY)
            self._lowers[lower["image"]] = path
        return path

    def _forget(self, images: list[str]) -> None:
        """Unmount EROFS images that no step uses any more, so that what they are made of can go."""
        for image in images:
            path = self._lowers.pop(image, None)
            if path is not None:
                with contextlib.suppress(OSError):
                    mounts.unmount(path)
                    os.rmdir(path)

    def _kill(self, number: int | None) -> None:
        """Kill everything, or one step: as one whose time is up."""
        if number is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            return
        for step in self._running.values():
            if step.number == number:
                step.deadline = min(step.deadline, time.monotonic())

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            known = self._running.pop(pid, None)
            if known is not None:
                self._clear(os.path.join(self._root, "step", str(known.number)), known.mounted)
                code = os.waitstatus_to_exitcode(status)
                # It may have come to a good end in the moment in which its time ran out.
                _answer(self._connection, {"id": known.number, "status": code, "late": known.late and code != 0})

    def _kill_late(self) -> float | None:
        """Kill the containers whose time is up; milliseconds until the next look, None if nothing has a time."""
        now = time.monotonic()
        wait = float("inf")
        for pid, step in self._running.items():
            if step.deadline <= now:
                # Not the runtime: it ends by itself once the container has, and takes its cgroup and state away.
                # The container's first process takes with it what is in its PID namespace, whatever that ignores.
                step.late = True
                late = now > step.deadline + RUNTIME_SECONDS
                for each in [*descendants(pid), *([pid] if late else [])]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
                wait = min(wait, KILL_AGAIN_SECONDS)
            else:
                wait = min(wait, step.deadline - now)
        return None if wait == float("inf") else min(wait, LONGEST_SLEEP) * 1000 + 1

    def _clear(self, step: str, mounted: list[str]) -> None:
        stands = False
        for target in reversed(mounted):
            try:
                mounts.unmount(target)
            except OSError as error:
                stands |= error.errno != errno.EINVAL  # nothing is mounted there, as mounting failed
        if not stands:  # through what does, the files of a layer would be removed
            shutil.rmtree(step, ignore_errors=True)


def _copy(source: int, target: str, mode: int, uid: int, gid: int) -> None:
    with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        os.fchown(file.fileno(), uid, gid)
        os.fchmod(file.fileno(), mode)
        os.lseek(source, 0, os.SEEK_SET)
        while data := os.read(source, 1 << 20):
            file.write(data)


def _answer(connection: socket.socket, reply: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        connection.send(json.dumps(reply).encode())
