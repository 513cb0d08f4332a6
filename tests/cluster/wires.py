"""Machines with addresses of their own on one network, each of whose wires can be cut: network namespaces at a bridge."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

TEST = "test"
"""The tests' own place at the bridge: where they were started, not a namespace."""
DEVICE = "eth0"
RATE = 1e9
"""Bits a second of a wire with a delay."""
LINK = Path(__file__).resolve().parents[2] / "bench/slow_link.py"
_numbers = itertools.count()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def why_not() -> str:
    """Why there can be no such machines here; "" if there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    name = f"bgtry{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "ip netns does not work here"
    try:
        made = subprocess.run(["ip", "-n", name, "link", "add", "br0", "type", "bridge"], capture_output=True, check=False)
        return "" if made.returncode == 0 else "this kernel has no bridges"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


class Wires:
    """A context manager: at its end nothing is left of it. delay: seconds in each direction, made by processes of ours
    since not every kernel has netem."""

    def __init__(self, *machines: str, delay: float = 0.0) -> None:
        self._machines = machines
        self._delay = delay
        number = next(_numbers)
        self._prefix = f"bgc{os.getpid()}n{number}"  # the name of a device has at most 15 characters
        self._net = f"10.{200 + os.getpid() % 50}.{(os.getpid() // 50 + number) % 250}"
        self._ended = contextlib.ExitStack()

    def __enter__(self) -> Wires:
        try:
            self._make("switch")
            self._ip("switch", "link", "add", "br0", "type", "bridge")
            self._ip("switch", "link", "set", "br0", "up")
            for machine in self._machines:
                self._make(machine)
                if self._delay:
                    self._plug_slowly(machine)
                else:
                    self._plug(machine, ["netns", self.namespace(machine)], DEVICE)
                self._ip(machine, "address", "add", f"{self.address(machine)}/24", "dev", DEVICE)
                self._ip(machine, "link", "set", DEVICE, "up")
            here = self._prefix
            self._plug(TEST, [], here)
            self._ended.callback(subprocess.run, ["ip", "link", "delete", here], check=False, capture_output=True)
            subprocess.run(["ip", "address", "add", f"{self.address(TEST)}/24", "dev", here], check=True)
            subprocess.run(["ip", "link", "set", here, "up"], check=True)
        except BaseException:
            self._ended.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.close()

    def address(self, machine: str) -> str:
        return f"{self._net}.{254 if machine == TEST else 1 + self._machines.index(machine)}"

    def namespace(self, machine: str) -> str:
        return f"{self._prefix}-{machine}"

    def inside(self, machine: str) -> list[str]:
        """What to put before a command so that it runs there, as the very process. Mounts stay those of the caller."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(machine)}"]

    def cut(self, machine: str) -> None:
        """Nothing reaches it, and nobody is told."""
        self._ip("switch", "link", "set", f"to-{machine}", "down")

    def mend(self, machine: str) -> None:
        self._ip("switch", "link", "set", f"to-{machine}", "up")

    def processes(self, machine: str) -> list[int]:
        shown = subprocess.run(["ip", "netns", "pids", self.namespace(machine)], capture_output=True, text=True, check=True)
        return [int(each) for each in shown.stdout.split()]

    def _make(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", self.namespace(name)], check=True)
        self._ended.callback(subprocess.run, ["ip", "netns", "delete", self.namespace(name)], check=False)
        self._ip(name, "link", "set", "lo", "up")

    def _plug(self, machine: str, where: list[str], device: str) -> None:
        port = f"to-{machine}"
        own = ["ip", "link", "add", port, "netns", self.namespace("switch"), "type", "veth", "peer", "name", device, *where]
        subprocess.run(own, check=True)
        self._ip("switch", "link", "set", port, "master", "br0", "up")

    def _plug_slowly(self, machine: str) -> None:
        port = f"to-{machine}"
        # The process is in the namespace that it enters last: the switch's, so that the machine has only its own.
        ends = (f"{self.namespace(machine)}:{DEVICE}", f"{self.namespace('switch')}:{port}")
        given = ["--frames", "--delay", str(self._delay), "--rate", str(RATE), *ends]
        process = subprocess.Popen([sys.executable, LINK, *given], stdout=subprocess.PIPE, text=True)
        self._ended.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the wire cannot be made"
        self._ip("switch", "link", "set", port, "master", "br0", "up")

    def _ip(self, name: str, *arguments: str) -> None:
        subprocess.run(["ip", "-n", self.namespace(name), *arguments], check=True, capture_output=True)
