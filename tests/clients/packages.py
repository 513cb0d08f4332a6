"""Packages: programs of others, fetched from where they are published, unpacked and not installed."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FETCH_SECONDS = 300


class Unavailable(Exception):
    """Why a package cannot be had here."""


class Packages:
    """Unpacks below a directory, each package once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._had: dict[str, Path | Unavailable] = {}

    def npm(self, name: str) -> Path:
        """NAME@VERSION's `package` directory. Raises Unavailable."""
        return self._once(name, self._npm)

    def wheel(self, name: str) -> Path:
        """What a wheel of NAME==VERSION holds. Raises Unavailable."""
        return self._once(name, self._wheel)

    def debian(self, *names: str) -> Path:
        """A root directory with the files of these packages, without those that they depend on. Raises Unavailable."""
        return self._once(" ".join(names), self._debian)

    def _once(self, name: str, fetch: object) -> Path:
        if platform.machine() != "x86_64":
            raise Unavailable("the packages are for x86_64")
        if name not in self._had:
            place = self._directory / f"package-{len(self._had)}"
            place.mkdir()
            try:
                self._had[name] = fetch(name, place)  # type: ignore[operator]
            except Unavailable as problem:
                self._had[name] = problem
        found = self._had[name]
        if isinstance(found, Unavailable):
            raise found
        return found

    def _npm(self, name: str, place: Path) -> Path:
        run("npm", "pack", "--silent", name, at=place)
        with tarfile.open(next(place.glob("*.tgz"))) as archive:
            archive.extractall(place, filter="data")
        return place / "package"

    def _wheel(self, name: str, place: Path) -> Path:
        run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", name, at=place)
        with zipfile.ZipFile(next(place.glob("*.whl"))) as archive:
            archive.extractall(place / "unpacked")
        return place / "unpacked"

    def _debian(self, names: str, place: Path) -> Path:
        run("apt-get", "download", *names.split(), at=place)
        for file in place.glob("*.deb"):
            run("dpkg-deb", "-x", str(file), str(place / "root"), at=place)
        return place / "root"


def run(*command: str, at: Path) -> None:
    """Raises Unavailable."""
    if shutil.which(command[0]) is None:
        raise Unavailable(f"there is no {command[0]} here")
    try:
        done = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(command)} took longer than {FETCH_SECONDS} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise Unavailable(f"{' '.join(command)} failed: {lines[-1] if lines else done.returncode}")
