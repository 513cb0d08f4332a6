"""Case: one folder with a Dockerfile, what it is built from, and what must come out."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
from bz2 import compress as bzip2
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent
MTIME = 1_600_000_000
"""Seconds; what every file of a context has, so that nothing depends on the checkout."""
_PACK = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bzip2,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A folder and its `expect.json` (README.md says what may stand there)."""

    folder: Path
    expect: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def dockerfile(self) -> Path:
        return self.folder / "Dockerfile"

    def arguments(self, context: Path, places: Mapping[str, str]) -> list[str]:
        """The arguments of `build`: context, Dockerfile and options. places: what `{web}` and the like stand for."""
        known = {"context": str(context), "dockerfile": str(self.dockerfile), "case": str(self.folder), **places}
        words: list[str] = self.expect.get("build", ["{context}", "-f", "{dockerfile}"]) + self.expect.get("options", [])
        for name, value in known.items():
            words = [word.replace(f"{{{name}}}", value) for word in words]
        return words

    def stdin(self, context: Path) -> bytes:
        """What the build reads: nothing, the Dockerfile, or the context with it as a tar."""
        kind = self.expect.get("stdin", "")
        if kind == "dockerfile":
            return self.dockerfile.read_bytes()
        if kind in ("tar", "tar.gz"):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
                tar.add(context, ".")
                tar.add(self.dockerfile, "Dockerfile")
            return gzip.compress(buffer.getvalue()) if kind == "tar.gz" else buffer.getvalue()
        return b""

    def make_context(self, target: Path) -> Path:
        """The context as a directory with exact modes, times, links and archives, whatever version control kept."""
        source = self.folder / "context"
        if source.exists():
            shutil.copytree(source, target, symlinks=True)
        else:
            target.mkdir(parents=True)
        for path in target.rglob("*"):
            executable = path.is_dir() or os.stat(path).st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
        extra = self.expect.get("context", {})
        for name, text in extra.get("files", {}).items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text)
        for name, members in extra.get("archives", {}).items():
            (target / name).write_bytes(archive(name, members))
        for name in extra.get("directories", []):
            (target / name).mkdir(parents=True)
        for name, to in extra.get("links", {}).items():
            (target / name).symlink_to(to)
        for name, to in extra.get("hardlinks", {}).items():
            (target / name).hardlink_to(target / to)
        for name, mode in extra.get("modes", {}).items():
            (target / name).chmod(int(mode, 8))
        for path in target.rglob("*"):
            os.utime(path, (MTIME, MTIME), follow_symlinks=False)
        return target


def archive(name: str, members: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A tar, compressed as the end of its name says (`.plain` for none)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, member in members.items():
            info = tarfile.TarInfo(path)
            data = member.get("content", "").encode()
            kinds = {"link": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "directory": tarfile.DIRTYPE}
            info.type = next((kind for key, kind in kinds.items() if key in member), tarfile.REGTYPE)
            info.linkname = member.get("link", member.get("hardlink", ""))
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            info.mode = int(member.get("mode", "0755" if "directory" in member else "0644"), 8)
            info.uid, info.gid = map(int, member.get("owner", "0:0").split(":"))
            info.mtime = member.get("mtime", MTIME)
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in member.get("xattrs", {}).items()}
            tar.addfile(info, io.BytesIO(data))
    return next((pack for end, pack in _PACK.items() if name.endswith(end)), bytes)(buffer.getvalue())


def load(folder: Path = FOLDER) -> list[Case]:
    """All cases below a folder, by name."""
    found = sorted(path.parent for path in folder.glob("*/expect.json"))
    return [Case(path, json.loads((path / "expect.json").read_text())) for path in found]
