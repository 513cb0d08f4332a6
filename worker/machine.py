"""What this machine offers for RUNs: its runtime, its way to mount layers, its compiled system call filter."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from blake3 import blake3

from cache import erofs
from cache.entry import DIRECTORY, Entry
from cache.errors import EnvironmentProblem, UsageError
from cache.index import Index
from worker import seccomp
from worker.keeper import Probe
from worker.keeper_client import Keeper
from worker.namespaces import enter_user_namespace
from worker.run import Machine
from worker.runtime import find_runtime
from worker.snapshot import DirectorySnapshots, ErofsSnapshots, Snapshotter, snapshot_directory

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from worker.library import LayerLibrary

SNAPSHOTTER = "BUILDGRAPH_SNAPSHOTTER"
"""Forces `erofs` or `dirs`."""


def open_machine(store: LmdbStore, library: LayerLibrary) -> Machine:
    """Prepare for RUNs: enter a user namespace if not root, fork the keeper. Call before any thread starts.

    Raises EnvironmentProblem with what this machine lacks and what to do.
    """
    runtime = find_runtime()
    rootless = os.geteuid() != 0
    if rootless:
        enter_user_namespace()
    wanted = os.environ.get(SNAPSHOTTER, "")
    if wanted not in ("", "erofs", "dirs"):
        raise UsageError(f"{SNAPSHOTTER}={wanted} is not a way to mount layers", hint="it may be erofs or dirs")
    probe = None if wanted == "dirs" or rootless else _probe(store)
    keeper = Keeper(store.scratch("keeper"), userxattr=rootless, cgroups=runtime.name == "runc", probe=probe)
    if wanted == "erofs" and not keeper.mounts_erofs:
        keeper.close()
        raise EnvironmentProblem(
            "this kernel or user cannot mount layers as EROFS", hint=f"unset {SNAPSHOTTER}, or use Linux 6.12 as root"
        )
    directory = snapshot_directory(store.directory)
    snapshotter: Snapshotter
    if keeper.mounts_erofs:
        snapshotter = ErofsSnapshots(library, directory)
    else:
        snapshotter = DirectorySnapshots(library, directory, rootless=rootless)
    bpf = _filter(store) if runtime.name == "crun" else None
    return Machine(keeper, runtime, snapshotter, rootless, bpf)


def _probe(store: LmdbStore) -> Probe:
    """A layer with one directory, to see whether the kernel mounts its like (EROFS backed by files: Linux 6.12)."""
    image, tar = store.scratch("probe-image"), store.scratch("probe-tar")
    try:
        with open(tar, "wb") as file:
            file.write(bytes(1024))
        with open(image, "wb") as file:
            file.write(erofs.build(Index([Entry("d", DIRECTORY, 0o755)]), 1024))
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to the store {store.directory}: {error.strerror}") from None
    return Probe(image, tar)


def _filter(store: LmdbStore) -> bytes:
    """The compiled filter, from the last time if the profile is the same: compiling takes 40 ms."""
    with open(seccomp.PROFILE, "rb") as file:
        identity = blake3(file.read() + os.uname().machine.encode()).hexdigest()[:32]
    path = os.path.join(store.directory, f"seccomp-{identity}.bpf")
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    compiled = seccomp.compile_bpf()
    with contextlib.suppress(OSError):
        fresh = store.scratch("seccomp")
        with open(fresh, "wb") as file:
            file.write(compiled)
            os.fsync(file.fileno())
        os.rename(fresh, path)
    return compiled
