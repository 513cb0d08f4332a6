"""Maker: who makes results here, as they carry it."""

from __future__ import annotations

import getpass
import os


def maker() -> str:
    """`user@machine`."""
    # In a user namespace everybody is root; the environment knows the name that a colleague would recognise.
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or getpass.getuser()
    return f"{user}@{os.uname().nodename}"
