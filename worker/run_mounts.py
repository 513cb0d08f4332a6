"""The mounts that a RUN asks for, turned into what the keeper and the sandbox need."""

from __future__ import annotations

import functools
import posixpath
from typing import TYPE_CHECKING

from cache.entry import DIRECTORY
from cache.errors import DefinitionError, EnvironmentProblem
from worker.action import Action, Cancelled, Order
from worker.agent_socket import forward
from worker.cache_mounts import mount_key, open_cache
from worker.copy_plan import CopyPlan
from worker.copy_write import write_plan
from worker.extract import extract
from worker.keeper_client import BundleFile, View
from worker.mount_points import MountPoint, real_target
from worker.sandbox import Bind, Tmpfs
from worker.selection import missing_hint

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Sequence

    from cache.result import Layer
    from cache.rootfs import Rootfs
    from worker.library import LayerLibrary
    from worker.operation import Mount
    from worker.tree import Tree


class RunMounts:
    """Collects, mount by mount: mounts and mount points of the sandbox, views and files of the keeper, variables."""

    def __init__(
        self,
        library: LayerLibrary,
        store_directory: str,
        bundle: str,
        action: Action,
        order: Order,
        held: contextlib.ExitStack,
        lowers: Callable[[Sequence[Layer], Rootfs], tuple[dict[str, str], ...]],
    ) -> None:
        """held: closes what must stay open while the step runs. lowers: how root filesystems are mounted."""
        self._library = library
        self._store_directory = store_directory
        self._bundle = bundle
        self._action = action
        self._order = order
        self._held = held
        self._lowers = lowers
        self._rootfs = library.rootfs(action.rootfs)
        self.mounts: list[Bind | Tmpfs] = []
        self.points: list[MountPoint] = []
        self.views: list[View] = []
        self.files: dict[str, BundleFile] = {}
        self.variables: dict[str, str] = {}

    def prepare(self, mounts: Sequence[Mount]) -> None:
        """Prepare all. Raises Cancelled while waiting for a locked cache, DefinitionError, EnvironmentProblem."""
        caches = self._open_caches([mount for mount in mounts if mount.type == "cache"])
        for mount in mounts:
            if mount.type == "bind":
                self._bind(mount)
            elif mount.type == "cache":
                path = caches[mount_key(mount), mount.sharing]
                self._add(mount.target, True, Bind(path, real_target(self._rootfs, mount.target), mount.read_only))
            elif mount.type == "tmpfs":
                self._add(mount.target, True, Tmpfs(real_target(self._rootfs, mount.target), mount.size))
            elif mount.type == "secret":
                self._secret(mount)
            else:
                self._agent(mount)

    def _open_caches(self, mounts: Sequence[Mount]) -> dict[tuple[str, str], str]:
        """(key, sharing) → directory. A cache that stands at two places of one step is opened once, as in docker."""
        directories: dict[tuple[str, str], str] = {}
        # In one order for all steps, or two that want the same locked ones could wait for each other.
        for mount in sorted(mounts, key=mount_key):
            key = mount_key(mount), mount.sharing
            if key not in directories:
                fill = functools.partial(self._fill, mount)
                opened = open_cache(self._store_directory, mount, self._order.cancelled, fill, self._order.shown)
                if opened is None:
                    raise Cancelled
                self._held.callback(opened.release)
                directories[key] = opened.path
        return directories

    def _add(self, target: str, directory: bool, mount: Bind | Tmpfs) -> None:
        self.mounts.append(mount)
        if not target.startswith(("/dev/", "/proc/", "/sys/")):
            self.points.append(MountPoint(target, directory))

    def _bind(self, mount: Mount) -> None:
        source, directory = self._source(mount)
        self._add(mount.target, directory, Bind(source, real_target(self._rootfs, mount.target), mount.read_only))

    def _source(self, mount: Mount) -> tuple[str, bool]:
        """Mount what the bind comes from; its path in the keeper's namespace, and whether it is a directory."""
        assert mount.input is not None
        given = self._action.inputs[mount.input]
        name = f"view-{len(self.views)}"
        if isinstance(given, tuple):
            layers = self._library.fetch_all(given)
            rootfs = self._library.rootfs(layers)
            found = rootfs.resolve(mount.source)
            if found.entry is None:
                raise _missing(mount, self._library.tree(layers))
            inside, directory = found.path, found.entry.kind == DIRECTORY
        else:
            layer, inside, directory = self._materialize(given, mount)
            layers = [layer]
            rootfs = self._library.rootfs(layers)
        upper = work = None
        if not mount.read_only:
            # Writes are allowed and thrown away with the step.
            from worker.run import RunScratch

            scratch = RunScratch(self._library, rootfs.lookup(""))
            upper, work = scratch.upper, scratch.work
        self.views.append(View(name, self._lowers(layers, rootfs), upper, work))
        return posixpath.join(self._bundle, name, inside).rstrip("/"), directory

    def _materialize(self, tree: Tree, mount: Mount) -> tuple[Layer, str, bool]:
        """A part of a context as a layer, so that a step sees just the files that its key counts."""
        found = tree.resolve(mount.source)
        if found.entry is None:
            raise _missing(mount, tree)
        plan = CopyPlan(self._library.rootfs(()), owner=None, mode="", now=0)
        directory = found.entry.kind == DIRECTORY
        if directory:
            plan.content("", tree, found.path)
        else:
            plan.file("file", tree, found.entry, found.layer)
        layer, batch = self._library.write_layer(lambda fd: write_plan(plan, fd))
        self._library.store.submit(batch._replace(records=()))
        return layer, "" if directory else "file", directory

    def _fill(self, mount: Mount, path: str) -> None:
        """Start a cache mount with what it held elsewhere, which is later, or else with the files of its `from`."""
        if self._order.warm(mount, path) or mount.input is None:
            return
        given = self._action.inputs[mount.input]
        tree: Tree = self._library.tree(given) if isinstance(given, tuple) else given
        layer, _, directory = self._materialize(tree, mount)
        if not directory:
            raise DefinitionError(f"{mount.source!r} is a file; a cache mount starts as a directory")
        # In a user namespace no device can be made; a cache that starts with one is unlikely enough.
        extract(self._library.index(layer), self._library.open_tar(layer), path, userxattr=True, devices=False)

    def _agent(self, mount: Mount) -> None:
        agent = self._order.agents.get(mount.id)
        if agent is None:
            if mount.required:
                raise not_given(mount)
            return
        path = self._library.store.scratch("agent")
        self._held.callback(forward(agent, path, mount.mode, mount.uid, mount.gid))
        self.variables.setdefault("SSH_AUTH_SOCK", mount.target)
        self._add(mount.target, False, Bind(path, real_target(self._rootfs, mount.target), False))

    def _secret(self, mount: Mount) -> None:
        value = self._order.secrets.get(mount.id)
        if value is None:
            if mount.required:
                raise not_given(mount)
            return
        if mount.env:
            self.variables[mount.env] = value.decode("utf-8", "surrogateescape")
        if mount.target:
            name = f"secret-{len(self.files)}"
            self.files[name] = BundleFile(value, mount.mode, mount.uid, mount.gid)
            target = real_target(self._rootfs, mount.target)
            self._add(mount.target, False, Bind(f"{self._bundle}/{name}", target, True))


def not_given(mount: Mount) -> EnvironmentProblem:
    """Of a secret or an ssh agent that a RUN requires."""
    if mount.type == "ssh":
        hint = f"pass it with --ssh {mount.id}, or --ssh {mount.id}=SOCKET"
        return EnvironmentProblem(f"the ssh agent {mount.id!r} is required", hint=hint)
    hint = f"pass it with --secret id={mount.id},src=FILE"
    return EnvironmentProblem(f"the secret {mount.id!r} is required", hint=hint)


def _missing(mount: Mount, tree: Tree) -> DefinitionError:
    message = f"there is no {mount.source!r} to mount at {mount.target}"
    return DefinitionError(message, hint=missing_hint(tree, mount.source))
