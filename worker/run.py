"""Execute a RUN: mount its root filesystem, run its program in a container, capture what it changed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.disk_usage import free_bytes
from cache.entry import DIRECTORY, Entry
from cache.errors import EnvironmentProblem
from cache.run_dir import remove_tree
from worker.action import Action, Cancelled, CommandFailed, Order, TimedOut
from worker.capture import capture
from worker.emulation import require_emulation
from worker.keeper_client import BundleFile, Keeper, OutOfTime, View
from worker.mount_points import (
    SYSTEM_DIRECTORIES,
    SYSTEM_FILES,
    MountPoint,
    Stub,
    make_stubs,
    plan_stubs,
    real_target,
)  # fmt: skip
from worker.operation import Run
from worker.run_mounts import RunMounts
from worker.sandbox import Bind, Sandbox, configuration
from worker.users import resolve_user

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.layer_writer import LayerTar
    from cache.result import Layer
    from cache.rootfs import Rootfs
    from worker.library import LayerLibrary
    from worker.output import Output
    from worker.runtime import Runtime
    from worker.snapshot import Snapshotter

MAX_LAYERS = 490
"""overlayfs stacks 500 lower directories at most; some are for stubs and what the kernel may take."""
NO_SPACE = 1 << 20
"""A command that failed with fewer free bytes than this probably failed for lack of space."""
RESOLV_CONF = "/etc/resolv.conf"


class Machine(NamedTuple):
    """What a RUN needs of the machine. bpf: the compiled system call filter, None for a runtime that compiles it."""

    keeper: Keeper
    runtime: Runtime
    snapshotter: Snapshotter
    rootless: bool
    bpf: bytes | None


class Runner:
    """Executes RUNs. Threads may call `run` at the same time. discard: deletes the scratch of one that failed."""

    def __init__(
        self, library: LayerLibrary, store_directory: str, machine: Machine, discard: Callable[[str], None]
    ) -> None:
        self._library = library
        self._store_directory = store_directory
        self._machine = machine
        self._discard = discard
        self._lock = threading.Lock()
        self._stubs: dict[tuple[Stub, ...], str] = {}
        self._full_at = 0.0

    def run(self, action: Action, order: Order, output: Output) -> RunScratch:
        """Run the program once; where what it changed lies. Raises CommandFailed, TimedOut, Cancelled and others."""
        operation = action.operation
        assert isinstance(operation, Run)
        if action.platform:
            require_emulation(action.platform)
        layers = self._library.fetch_all(action.rootfs)
        if len(layers) > MAX_LAYERS:
            raise EnvironmentProblem(f"the image has {len(layers)} layers; more than {MAX_LAYERS} cannot be mounted")
        rootfs = self._library.rootfs(layers)
        scratch = RunScratch(self._library, rootfs.lookup(""), userxattr=self._machine.rootless)
        try:
            self._run_in(scratch, action, order, output, layers, rootfs)
        except CommandFailed as failure:
            if failure.disk_full:
                # At once: a store that has no space for the log takes nothing any more.
                with contextlib.suppress(OSError):
                    remove_tree(scratch.path)
            self._discard(scratch.path)
            raise
        except BaseException:
            self._discard(scratch.path)
            raise
        return scratch

    def _run_in(
        self,
        scratch: RunScratch,
        action: Action,
        order: Order,
        output: Output,
        layers: Sequence[Layer],
        rootfs: Rootfs,
    ) -> None:
        operation = action.operation
        assert isinstance(operation, Run)
        began = time.monotonic()
        user = resolve_user(operation.user, rootfs.read_small("etc/passwd"), rootfs.read_small("etc/group"))
        number = self._machine.keeper.new_step()
        bundle = self._machine.keeper.step_directory(number)
        files: dict[str, BundleFile] = {}
        with contextlib.ExitStack() as held:
            mounts = RunMounts(self._library, self._store_directory, bundle, action, order, held, self.lowers)
            mounts.prepare(operation.mounts)
            files.update(mounts.files)
            binds = [*self._system_files(operation, rootfs, bundle, files), *mounts.mounts]
            for script in operation.scripts:
                name = f"script-{len(files)}"
                files[name] = BundleFile(script.body.encode("utf-8", "surrogateescape"), 0o755)
                binds.append(Bind(f"{bundle}/{name}", f"/dev/pipes/{script.name}", True))
            points = [MountPoint(target, True) for target in SYSTEM_DIRECTORIES]
            points += [MountPoint(target, False) for target in SYSTEM_FILES]
            points += mounts.points
            lowers = self.lowers(layers, rootfs)
            stubs = plan_stubs(rootfs, points)
            if stubs:
                lowers = (*lowers, {"directory": self._stub_layer(stubs, rootfs)})
            views = [View("rootfs", lowers, scratch.upper, scratch.work, operation.insecure), *mounts.views]
            sandbox = Sandbox(
                argv=operation.argv,
                env=_environment(operation, order, mounts.variables),
                cwd=operation.cwd,
                uid=user.uid,
                gid=user.gid,
                groups=user.groups,
                hostname=operation.hostname,
                root=f"{bundle}/rootfs",
                host_network=operation.network != "none",
                rootless=self._machine.rootless,
                mounts=tuple(binds),
                shm_size=operation.shm_size,
                ulimits=operation.ulimits,
                insecure=operation.insecure,
            )
            config = json.dumps(configuration(sandbox, self._machine.bpf)).encode()
            files["config.json"] = BundleFile(config, 0o600)
            try:
                status = self._start(number, bundle, views, files, order, output)
            except OutOfTime:
                status = None
        if order.cancelled():
            raise Cancelled
        if status is None:
            raise TimedOut(order.timeout or 0.0, list(output.tail))
        if status != 0:
            failure = CommandFailed(status, list(output.tail))
            failure.disk_full = self._was_full(began)
            raise failure

    def _was_full(self, since: float) -> bool:
        """Whether there was no space left, now or when another step failed, whose space was given back at once."""
        if free_bytes(self._store_directory) < NO_SPACE:
            self._full_at = time.monotonic()
        return self._full_at >= since

    def _start(
        self,
        number: int,
        bundle: str,
        views: list[View],
        files: dict[str, BundleFile],
        order: Order,
        output: Output,
    ) -> int:
        reading, writing = os.pipe()
        try:
            keeper = self._machine.keeper
            command = self._machine.runtime.command(keeper.state_directory, bundle, f"buildgraph-{number}")
            try:
                wait = keeper.start(number, command, views, writing, files, order.timeout)
            finally:
                os.close(writing)
            kill = functools.partial(keeper.kill, number)
            order.begun(kill)
            if order.cancelled():
                kill()  # whoever cancelled may have done so before there was anything to kill
            output.read_from(reading)
            return wait()
        except OSError as error:
            raise EnvironmentProblem(f"cannot keep the step's output: {error.strerror}") from None
        finally:
            os.close(reading)

    def lowers(self, layers: Sequence[Layer], rootfs: Rootfs) -> tuple[dict[str, str], ...]:
        """What the keeper mounts for a root filesystem, lowest first; empty layers are left out."""
        pairs = zip(layers, rootfs.layers, strict=True)
        lowers = [self._machine.snapshotter.lower(layer, index) for layer, index in pairs if index.entries]
        # Two steps may have made the same layer, which overlayfs refuses to stack twice. The upper one says it all:
        # whatever the lower one adds or hides, it adds and hides again.
        highest = {tuple(lower.items()): lower for lower in reversed(lowers)}
        if not highest:
            return ({"directory": self._stub_layer((), rootfs)},)  # overlayfs wants one at least
        return tuple(reversed(highest.values()))

    def _stub_layer(self, stubs: tuple[Stub, ...], rootfs: Rootfs) -> str:
        root = rootfs.lookup("")
        with self._lock:
            path = self._stubs.get(stubs)
            if path is None:
                path = self._library.store.scratch("stubs")
                try:
                    make_stubs(path, stubs, None if root is None else root[0])
                except OSError as error:
                    raise EnvironmentProblem(f"cannot prepare a step's mount points: {error.strerror}") from None
                self._stubs[stubs] = path
            return path

    def _system_files(
        self, operation: Run, rootfs: Rootfs, bundle: str, files: dict[str, BundleFile]
    ) -> list[Bind]:
        """The files that docker mounts over the image's own, so that no step can bake the machine's into a layer."""
        names = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
        names += [f"127.0.0.1\t{operation.hostname}", *operation.hosts]
        try:
            with open(RESOLV_CONF, "rb") as file:
                files["resolv.conf"] = BundleFile(file.read())
        except OSError:
            files["resolv.conf"] = BundleFile(b"")
        files["hosts"] = BundleFile(("\n".join(names) + "\n").encode())
        files["hostname"] = BundleFile(f"{operation.hostname}\n".encode())
        sources = ("resolv.conf", "hosts", "hostname")
        return [
            Bind(f"{bundle}/{source}", real_target(rootfs, target), False)
            for source, target in zip(sources, SYSTEM_FILES, strict=True)
        ]


class RunScratch:
    """The writable part of one step's overlay. upper: what it changed. `discard` deletes it."""

    def __init__(self, library: LayerLibrary, root: tuple[Entry, int] | None, *, userxattr: bool = False) -> None:
        self._userxattr = userxattr
        self.path = library.store.scratch("step")
        self.upper = os.path.join(self.path, "upper")
        self.work = os.path.join(self.path, "work")
        try:
            os.mkdir(self.path, 0o700)
            os.mkdir(self.work, 0o700)
            os.mkdir(self.upper, 0o755)
            if root is not None and root[0].kind == DIRECTORY:
                # The step sees the upper directory's owner and mode as those of its root.
                os.chown(self.upper, root[0].uid, root[0].gid)
                os.chmod(self.upper, root[0].mode)
        except OSError as error:
            raise EnvironmentProblem(f"cannot prepare a build step: {error.strerror}") from None

    def capture(self, tar_fd: int) -> LayerTar:
        """Write what the step changed as a layer's tar."""
        return capture(self.upper, tar_fd, userxattr=self._userxattr)


def _environment(operation: Run, order: Order, variables: dict[str, str]) -> tuple[str, ...]:
    env = {**order.proxies, **dict(operation.env), **variables}
    return tuple(f"{name}={value}" for name, value in env.items())
