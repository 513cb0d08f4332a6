"""Foreign platforms: whether this kernel can start programs of another processor, by itself or through qemu."""

from __future__ import annotations

import os

from cache.errors import EnvironmentProblem
from cache.platform import Platform

REGISTERED = "/proc/sys/fs/binfmt_misc"
_QEMU_NAMES = {
    "arm64": "aarch64", "arm": "arm", "amd64": "x86_64", "386": "i386", "riscv64": "riscv64", "ppc64le": "ppc64le",
    "s390x": "s390x", "loong64": "loongarch64", "mips64le": "mips64el", "mips64": "mips64",
}  # fmt: skip


def require_emulation(platform: str) -> None:
    """Raises EnvironmentProblem, with what is missing, if programs of this platform cannot run here."""
    wanted, here = Platform.parse(platform), Platform.here()
    if here.distance(wanted) is not None:
        return
    if wanted.os != here.os:
        raise EnvironmentProblem(f"this machine runs {here}, and no commands of {wanted}")
    name = _QEMU_NAMES.get(wanted.architecture, wanted.architecture)
    state = _registration(f"qemu-{name}")
    if state is None:
        raise EnvironmentProblem(
            f"commands of {wanted} need qemu's {name} registered with this kernel (binfmt_misc), and it is not",
            hint="apt-get install qemu-user-static binfmt-support",
        )
    if "F" not in state:
        raise EnvironmentProblem(
            f"qemu's {name} is registered without the flag F, so that containers do not find it",
            hint="apt-get install --reinstall qemu-user-static",
        )


def _registration(name: str) -> str | None:
    """The flags of an enabled entry; None if there is none."""
    try:
        with open(os.path.join(REGISTERED, name), encoding="ascii") as file:
            lines = file.read().split("\n")
    except OSError:
        return None
    if lines[0] != "enabled":
        return None
    return next((line.removeprefix("flags:").strip() for line in lines if line.startswith("flags:")), "")
