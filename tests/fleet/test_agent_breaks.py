"""A worker whose streams break: what the steps that run meanwhile see, and what others hear of them."""

from __future__ import annotations

import queue
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from worker_alone import WorkerAlone, agent_of

from cache.errors import EnvironmentProblem, exit_code
from worker.fleet.protocol import VERSION
from worker.fleet.sealing import ClientSeal
from worker.operation import Mount

if TYPE_CHECKING:
    from worker.action import Order

SSH = Mount("ssh", "/agent", id="default")


def test_a_step_that_speaks_to_an_agent_hears_that_the_stream_broke(tmp_path: Path) -> None:
    heard: queue.Queue[bytes] = queue.Queue()

    def execute(order: Order) -> None:
        for data in (b"one", b"two"):
            with socket.socket(socket.AF_UNIX) as ssh:
                ssh.connect(agent_of(order))
                ssh.settimeout(10)
                ssh.sendall(data)
                heard.put(ssh.recv(100))
        raise EnvironmentProblem("it has heard all")

    worker = WorkerAlone(tmp_path, execute)
    try:
        line = worker.line()
        line.lease((SSH,), agents=["default"])
        started = line.take("started")
        seal = ClientSeal("boot.1", started.seal_key)
        line.give(seal, {}, ("default",))
        first = line.take("sealed")
        assert seal.open(first) == b"one"
        line.cut()
        assert heard.get(timeout=10) == b"", "and does not wait for an answer that was lost"
        line = worker.line()
        assert line.take("started") == started, "so that whoever sealed something seals it again"
        second = line.take("sealed")
        while second.end:  # of the first
            second = line.take("sealed")
        assert second.channel != first.channel
        assert seal.open(second) == b"two"
        line.say(sealed=seal.seal(second.channel, b"TWO"))
        assert heard.get(timeout=10) == b"TWO"
        assert line.take("given_back").reason == "it has heard all"
    finally:
        worker.close()


def test_a_worker_that_does_not_know_the_schedulers_version_ends_and_says_so(tmp_path: Path) -> None:
    worker = WorkerAlone(tmp_path, lambda _: None, version=VERSION + 1)
    try:
        worker.line()
        worker.wait()
        assert worker.failure is not None
        assert exit_code(worker.failure) == 5
        text = f"the scheduler speaks version {VERSION + 1} of the fleet's protocol, and this worker knows only {VERSION}"
        assert worker.failure.message == text
        assert not worker.said
    finally:
        worker.close()
