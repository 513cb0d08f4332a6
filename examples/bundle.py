"""Bundle: the runtime configuration (OCI's config.json) for an image's root filesystem beside it.

The image's config is read from standard input, arguments replace its CMD, and the result goes to standard output.
No cgroup, no network of its own and no device that an ordinary user could not make: it must work everywhere.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID",
]  # fmt: skip
_MOUNTS = [
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/tmp", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
]


def bundle(image: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """The configuration; its root filesystem is the directory `rootfs` beside it."""
    config = image.get("config", {})
    command = (config.get("Entrypoint") or []) + (arguments or config.get("Cmd") or [])
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "args": command,
            "env": config.get("Env") or [],
            "cwd": config.get("WorkingDir") or "/",
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        },
        "mounts": [
            {"destination": target, "type": kind, "source": source, "options": options}
            for target, kind, source, options in _MOUNTS
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


if __name__ == "__main__":
    json.dump(bundle(json.load(sys.stdin), sys.argv[1:]), sys.stdout, indent=2)
