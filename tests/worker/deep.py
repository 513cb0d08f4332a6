"""A tree that is deeper than Python recurses, and whose paths are longer than the kernel takes at once."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEPTH = 1100


@contextmanager
def deep_tree(top: Path, depth: int = DEPTH, name: str = "dddd") -> Iterator[int]:
    """Directories below an existing one; a descriptor of the deepest. They go at the end, which pytest could not do."""
    fd = os.open(top, os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)
        subprocess.run(["rm", "-rf", top / name], check=True)
