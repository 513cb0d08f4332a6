"""What a server takes of memory, and what its log says it refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving import Serving


MB = 1 << 20


class Memory:
    """What a process took at most while a block ran, beyond what it had before."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.grown = 0

    def __enter__(self) -> Memory:
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # the peak is the present
        self._before = self._peak()
        return self

    def __exit__(self, *_: object) -> None:
        self.grown = self._peak() - self._before

    def _peak(self) -> int:
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def refused_lines(serving: Serving) -> list[tuple[str, str]]:
    return [(line["method"], line["status"]) for line in serving.events("refused")]
