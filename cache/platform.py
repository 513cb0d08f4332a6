"""Platform: operating system and processor of an image, normalised and compared as containerd does."""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

from cache.errors import UsageError

_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_ARCHITECTURES = {
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armv7l": "arm/v7",
    "armel": "arm/v6",
    "armv6l": "arm/v6",
    "armv5tel": "arm/v5",
    "armv8l": "arm/v8",
    "loongarch64": "loong64",
}
_KNOWN = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le"}
    | {"riscv64", "s390x", "wasm"}
)
_SYSTEMS = {"macos": "darwin", "linux": "linux", "windows": "windows", "darwin": "darwin", "freebsd": "freebsd"}
_DEFAULT_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
"""What an image without a variant runs on at least."""
_FALLBACK = {"amd64": ("386", ""), "arm64": ("arm", "v8")}
"""The 32-bit sibling that the same processor runs, and its highest variant."""


class Platform(NamedTuple):
    """An operating system, an architecture and a variant in their normal form.

    `variant` is empty where it is the default (amd64 v1, arm64 v8), and always set for arm.
    Make one with `of` or `parse`; the bare constructor normalises nothing.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, os: str, architecture: str, variant: str = "", os_version: str = "", os_features: tuple[str, ...] = ()
    ) -> Platform:
        """Normalise as containerd's platforms.Normalize: aarch64 → arm64, armhf → arm/v7, arm → arm/v7, …"""
        os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
        architecture, _, implied = _ARCHITECTURES.get(architecture, architecture).partition("/")
        variant = variant or implied
        if architecture in _DEFAULT_VARIANT:
            if variant[:1].isdigit():
                variant = f"v{variant}"
            if architecture == "arm":
                variant = variant or _DEFAULT_VARIANT["arm"]
            elif variant.removesuffix(".0") == _DEFAULT_VARIANT[architecture]:
                variant = ""
        return cls(_SYSTEMS.get(os, os), architecture, variant, os_version, os_features)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `OS/ARCH[/VARIANT]`, `OS` or `ARCH`; UsageError for anything else."""
        parts = text.split("/")
        if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
            raise UsageError(f"not a platform: {text!r}", hint="a platform looks like linux/amd64 or linux/arm/v7")
        if len(parts) > 1:
            return cls.of(parts[0], parts[1], parts[2] if len(parts) == 3 else "")
        word, here = parts[0].lower(), cls.here()
        if word in _SYSTEMS:
            return cls.of(word, here.architecture, here.variant)
        if word in _KNOWN or word in _ARCHITECTURES:
            return cls.of(here.os, word)
        raise UsageError(f"unknown platform: {text!r}", hint="a platform looks like linux/amd64 or linux/arm/v7")

    @classmethod
    def here(cls) -> Platform:
        """What this machine runs; a 64-bit kernel under a 32-bit Python counts as 64-bit."""
        return cls.of(sys.platform, os.uname().machine)

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")

    def distance(self, offered: Platform) -> int | None:
        """How far an offered platform is from this wanted one: 0 is exact, None cannot run.

        A processor runs its own and all earlier variants, then its 32-bit sibling (containerd's platforms.Only).
        """
        if offered.os != self.os or (self.os_version and offered.os_version != self.os_version):
            return None
        if offered.architecture == self.architecture:
            return _variant_distance(self.architecture, self.variant, offered.variant)
        sibling, highest = _FALLBACK.get(self.architecture, ("", ""))
        if offered.architecture != sibling:
            return None
        distance = _variant_distance(sibling, highest, offered.variant)
        return None if distance is None else 1_000_000 + distance


def _variant_distance(architecture: str, wanted: str, offered: str) -> int | None:
    if wanted == offered:
        return 0
    default = _DEFAULT_VARIANT.get(architecture, "")
    want, have = _version(wanted or default), _version(offered or default)
    return want - have if want is not None and have is not None and have <= want else None


def _version(variant: str) -> int | None:
    """`v8.2` as 8002, for comparing; None for a variant that is no version."""
    match = re.fullmatch(r"v([0-9]{1,3})(?:\.([0-9]{1,3}))?", variant)
    return int(match[1]) * 1000 + int(match[2] or 0) if match else None
