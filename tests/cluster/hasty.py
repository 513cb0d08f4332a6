"""The program with shorter times, so that what it waits for comes soon: `hasty.py LEASE_SECONDS ARGUMENT…`.

CLUSTER_CLOCK: seconds that its clock goes ahead. libfaketime shifts what Python sleeps until, too, and breaks it.
"""

from __future__ import annotations

import os
import sys
import time

import cache.remote.caller
import cache.server.server
from worker.fleet import limits


def hurry(lease: float) -> None:
    """Before anything else is imported that takes these times."""
    limits.LEASE_SECONDS, limits.RENEW_SECONDS = lease, lease / 5
    # Nobody is given up while a server or a worker starts again, which takes seconds on a slow machine with much to do.
    limits.NOBODY_SECONDS, limits.ORPHAN_SECONDS = max(25.0, 2.5 * lease), 3 * lease
    for module in (cache.remote.caller, cache.server.server):
        module._OPTIONS = tuple((name, _sooner(name, value)) for name, value in module._OPTIONS)
    from compiler.fleet import link

    link.Link.__init__.__defaults__ = (max(30.0, 3 * lease), *link.Link.__init__.__defaults__[1:])


def shift_clock(seconds: float) -> None:
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + seconds
    time.time_ns = lambda: wall_ns() + int(seconds * 1e9)


def _sooner(name: str, value: int) -> int:
    return {"grpc.keepalive_time_ms": 10_000, "grpc.keepalive_timeout_ms": 3_000}.get(name, value)


if __name__ == "__main__":
    shift_clock(float(os.environ.get("CLUSTER_CLOCK", "0")))
    seconds = float(sys.argv.pop(1))
    if seconds:
        hurry(seconds)
    from compiler.cli.main import entry

    entry()
