"""The sandbox: a RUN as an OCI runtime configuration, as closed as docker's default."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from worker import seccomp

CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
]  # fmt: skip
"""Docker's default set; ambient and inheritable stay empty."""
_EVERY_CAPABILITY = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""In the order of their numbers."""
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_DEVICE = ["nosuid", "noexec", "nodev"]


class Bind(NamedTuple):
    """A file or directory of the keeper's namespace that appears in the container."""

    source: str
    target: str
    read_only: bool


class Tmpfs(NamedTuple):
    """size: bytes; 0 leaves the kernel's default, half of memory."""

    target: str
    size: int


class Sandbox(NamedTuple):
    """Everything that differs from step to step. uid, gid, groups: inside the container."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    hostname: str
    root: str
    host_network: bool
    rootless: bool
    mounts: tuple[Bind | Tmpfs, ...]
    shm_size: int
    ulimits: tuple[tuple[str, int, int], ...]
    insecure: bool = False


def configuration(sandbox: Sandbox, bpf: bytes | None) -> dict[str, Any]:
    """The `config.json` of the bundle. bpf: the compiled filter for crun; None puts the profile in instead."""
    namespaces = ["pid", "mount", "ipc", "uts", "cgroup", *([] if sandbox.host_network else ["network"])]
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in namespaces]}
    annotations = {}
    capabilities = _all_capabilities() if sandbox.insecure else CAPABILITIES
    if sandbox.host_network and not sandbox.insecure:
        # On the machine's own interfaces raw sockets would see everybody's traffic.
        capabilities = [name for name in capabilities if name != "CAP_NET_RAW"]
    if not sandbox.insecure:
        linux |= {"maskedPaths": MASKED, "readonlyPaths": READ_ONLY}
        if bpf is None:
            linux["seccomp"] = seccomp.oci_profile()
        else:
            annotations["run.oci.seccomp_bpf_data"] = base64.b64encode(bpf).decode()
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": sandbox.uid, "gid": sandbox.gid, "additionalGids": list(sandbox.groups)},
            "args": list(sandbox.argv),
            "env": list(sandbox.env),
            "cwd": sandbox.cwd,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": False,
            "rlimits": [
                {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard} for name, soft, hard in sandbox.ulimits
            ],
        },
        "root": {"path": sandbox.root, "readonly": False},
        "hostname": sandbox.hostname,
        "mounts": [*_system_mounts(sandbox), *(_mount(extra) for extra in sandbox.mounts)],
        "linux": linux,
        "annotations": annotations,
    }


def _all_capabilities() -> list[str]:
    """For RUN --security=insecure, which the user must allow: all that this process could give."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return [f"CAP_{name}" for number, name in enumerate(_EVERY_CAPABILITY) if bounding >> number & 1]


def _system_mounts(sandbox: Sandbox) -> list[dict[str, Any]]:
    # Without a network namespace of its own a user namespace may not mount sysfs: it gets the host's, read-only.
    borrowed = sandbox.rootless and sandbox.host_network
    sys = (
        {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", *_DEVICE, "ro"]}
        if borrowed
        else {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_DEVICE, "ro"]}
    )
    terminal_group = [] if sandbox.rootless else ["gid=5"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": _DEVICE},
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *terminal_group],
        },
        {
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": [*_DEVICE, "mode=1777", f"size={sandbox.shm_size}"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _DEVICE},
        sys,
    ]  # fmt: skip


def _mount(mount: Bind | Tmpfs) -> dict[str, Any]:
    if isinstance(mount, Tmpfs):
        size = [f"size={mount.size}"] if mount.size else []
        return {
            "destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", *size],
        }  # fmt: skip
    options = ["rbind", "rprivate", "nodev", *(["ro", "nosuid"] if mount.read_only else [])]
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}
