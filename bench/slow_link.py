"""A wire of a given delay and rate between two network namespaces, as netem makes one; not every kernel has netem.

Usage: slow_link.py [--frames] --delay SECONDS --rate BITS_PER_SECOND NETNS:DEVICE NETNS:DEVICE (as root). It makes the
two TUN devices, says `ready`, and carries packets until it is ended; then the devices are gone, too. With --frames they
are TAP devices, which can be ports of a bridge.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from typing import NamedTuple

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
LARGEST = 65536
QUEUED = 1 << 20
"""Bytes that wait in one direction; what comes beyond is lost, as at a router. Twice what is on its way at 100 Mbit/s
and 40 ms."""


class Packet(NamedTuple):
    """due: when it is to arrive, by the monotonic clock."""

    due: float
    data: bytes


class Direction:
    """From one device to another. Packets leave one after the other, at the rate, and arrive the delay later."""

    def __init__(self, source: int, target: int, delay: float, rate: float) -> None:
        self.source = source
        self._target = target
        self._delay = delay
        self._rate = rate
        self._free_at = 0.0
        self._on_the_way: collections.deque[Packet] = collections.deque()

    def take(self) -> None:
        """Whatever the source has now."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self.source, LARGEST)
                now = time.monotonic()
                self._free_at = max(self._free_at, now)
                if (self._free_at - now) * self._rate / 8 > QUEUED:
                    continue
                self._free_at += len(data) * 8 / self._rate
                self._on_the_way.append(Packet(self._free_at + self._delay, data))

    def give(self) -> float | None:
        """Deliver what is due; seconds until there is more to do, None for nothing."""
        now = time.monotonic()
        while self._on_the_way and self._on_the_way[0].due <= now:
            with contextlib.suppress(OSError):  # the other end is down, or takes no more: lost, as on a wire
                os.write(self._target, self._on_the_way.popleft().data)
        return self._on_the_way[0].due - now if self._on_the_way else None


def enter(namespace: str) -> None:
    """Let this process stand in another network namespace."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")


def device(place: str, kind: int) -> int:
    """A new device, as a file of packets or frames."""
    namespace, _, name = place.partition(":")
    enter(namespace)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), kind | IFF_NO_PI))
    return fd


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--frames", action="store_true")
    parser.add_argument("ends", nargs=2, metavar="NETNS:DEVICE")
    arguments = parser.parse_args()
    with contextlib.suppress(PermissionError):
        os.nice(-15)  # late packets would make the wire another one than was asked for
    one, other = (device(end, IFF_TAP if arguments.frames else IFF_TUN) for end in arguments.ends)
    directions = [
        Direction(one, other, arguments.delay, arguments.rate), Direction(other, one, arguments.delay, arguments.rate)
    ]  # fmt: skip
    print("ready", flush=True)
    wait: float | None = None
    while True:
        readable, _, _ = select.select([one, other], [], [], wait)
        for direction in directions:
            if direction.source in readable:
                direction.take()
        waits = [seconds for direction in directions if (seconds := direction.give()) is not None]
        wait = max(0.0, min(waits)) if waits else None


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
