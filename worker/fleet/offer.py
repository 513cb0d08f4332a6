"""What a machine has to offer as a worker: platforms, memory, features, cache mounts, a name."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import EnvironmentProblem
from cache.platform import Platform
from cache.store import MOUNTS
from worker.emulation import require_emulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.run import Machine

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CANDIDATES = (
    "linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386", "linux/arm64", "linux/arm/v7", "linux/arm/v6",
    "linux/arm/v5", "linux/riscv64", "linux/ppc64le", "linux/s390x", "linux/loong64", "linux/mips64le", "linux/mips64",
)  # fmt: skip
"""Platforms that images have."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_MOUNT_NAME = re.compile(r"([0-9a-f]{32})(?:-[0-9]+)?")


class Offer(NamedTuple):
    """What a worker says of itself. memory: bytes. program: version of buildgraph. caches: cache mounts, as
    `mount_key` names them. cordoned: it takes nothing until somebody lets it."""

    name: str
    program: str
    slots: int
    memory: int
    platforms: Sequence[str]
    features: Sequence[str]
    labels: Mapping[str, str]
    caches: frozenset[str] = frozenset()
    cordoned: bool = False


def platforms() -> list[str]:
    """Of which commands run here, by themselves or with qemu."""
    found = [str(Platform.here())]
    for name in CANDIDATES:
        with contextlib.suppress(EnvironmentProblem):
            require_emulation(name)
            found.append(name)
    return list(dict.fromkeys(found))


def memory() -> int:
    """Bytes of this machine, or of the container that this runs in; 0 if nobody says."""
    sizes = []
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        sizes.append(int(file.readline().split()[1]) << 10)
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            sizes.append(int(file.read()))
    return min(sizes, default=0)


def features(machine: Machine) -> list[str]:
    return [machine.runtime.name, machine.snapshotter.name, *(["rootless"] if machine.rootless else [])]


def caches(store: str) -> frozenset[str]:
    """Cache mounts that a store has."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(os.path.join(store, MOUNTS)):
            match = _MOUNT_NAME.fullmatch(name)
            if match is not None:
                found.add(match[1])
    return frozenset(found)


def own_name() -> str:
    """This machine's, as a worker may be called."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", os.uname().nodename).strip("-._")[:63]
    return text or "worker"
