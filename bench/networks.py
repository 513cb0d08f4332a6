"""Machines for measurements: network namespaces, each with a slow wire of its own to the one where a server stands."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

SERVER = "10.77.0.1"
"""Where the server's namespace can be reached from every machine."""
DELAY = 0.020
"""Seconds in each direction."""
RATE = 100e6
"""Bits a second in each direction."""
DEVICE = "wire"
QUIET_SECONDS = 5.0
"""How long it may take until nothing moves."""
ROOT = Path(__file__).resolve().parent.parent


class Moved(NamedTuple):
    """Bytes at a machine's interface, headers and all."""

    received: int
    sent: int

    def since(self, before: Moved) -> Moved:
        return Moved(self.received - before.received, self.sent - before.sent)


def why_not() -> str:
    """Why there can be no such machines here; "" if there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if not os.access("/dev/net/tun", os.W_OK):
        return "there is no /dev/net/tun"
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "ip netns does not work here"


class Networks:
    """A server's namespace, and one for each machine. A context manager: at its end nothing is left of them."""

    def __init__(self, *machines: str, delay: float = DELAY, rate: float = RATE) -> None:
        self._machines = machines
        self._delay = delay
        self._rate = rate
        self._prefix = f"bg{os.getpid()}"
        self._ended = contextlib.ExitStack()

    def __enter__(self) -> Networks:
        try:
            self._make("server")
            self._ip("server", "address", "add", f"{SERVER}/32", "dev", "lo")
            for number, machine in enumerate(self._machines, 1):
                self._connect(machine, number)
        except BaseException:
            self._ended.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.close()

    def namespace(self, machine: str) -> str:
        return f"{self._prefix}-{machine}"

    def inside(self, machine: str) -> list[str]:
        """What to put before a command so that it runs there. Mounts and all else stay those of the caller."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(machine)}"]

    def moved(self, machine: str) -> Moved:
        """Since it was made."""
        shown = self._ip(machine, "-statistics", "-json", "link", "show", DEVICE)
        counted = json.loads(shown)[0]["stats64"]
        return Moved(counted["rx"]["bytes"], counted["tx"]["bytes"])

    def quiet(self, machine: str) -> Moved:
        """`moved`, once nothing of what ended is on the wire: a connection's last packets come after its process."""
        before, now = None, self.moved(machine)
        deadline = time.monotonic() + QUIET_SECONDS
        while now != before and time.monotonic() < deadline:
            time.sleep(0.2)
            before, now = now, self.moved(machine)
        return now

    def _make(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", self.namespace(name)], check=True)
        self._ended.callback(subprocess.run, ["ip", "netns", "delete", self.namespace(name)], check=False)
        self._ip(name, "link", "set", "lo", "up")

    def _connect(self, machine: str, number: int) -> None:
        here, there, far = f"10.77.{number}.2", f"10.77.{number}.1", f"to-{machine}"
        self._make(machine)
        self._wire(f"{self.namespace(machine)}:{DEVICE}", f"{self.namespace('server')}:{far}")
        for name, device, own, peer in ((machine, DEVICE, here, there), ("server", far, there, here)):
            # No address of IPv6, which would look for routers now and then: bytes on the wire are those of builds.
            self._ip(name, "link", "set", device, "addrgenmode", "none")
            self._ip(name, "address", "add", own, "peer", peer, "dev", device)
            self._ip(name, "link", "set", device, "up")
        self._ip(machine, "route", "add", SERVER, "via", there)

    def _wire(self, *ends: str) -> None:
        program = [sys.executable, ROOT / "bench/slow_link.py", "--delay", str(self._delay), "--rate", str(self._rate)]
        process = subprocess.Popen([*map(str, program), *ends], stdout=subprocess.PIPE, text=True)
        self._ended.callback(_end, process)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the wire between two namespaces cannot be made")

    def _ip(self, name: str, *arguments: str) -> str:
        command = ["ip", "-netns", self.namespace(name), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
