"""Forwarding an ssh agent: a real client talks to a real agent through the step's socket."""

import os
import subprocess
import time
from pathlib import Path

from worker.agent_socket import forward


def test_a_client_reaches_the_agent_through_a_long_path(tmp_path: Path) -> None:
    key, agent = tmp_path / "key", tmp_path / "agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the key", "-f", key], check=True)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        while not agent.exists():
            time.sleep(0.01)
        subprocess.run(["ssh-add", key], env={**os.environ, "SSH_AUTH_SOCK": str(agent)}, capture_output=True, check=True)
        directory = tmp_path / ("long" * 30)
        directory.mkdir()
        close = forward(str(agent), str(directory / "socket"), 0o600, os.getuid(), os.getgid())
        for _ in range(3):
            listed = subprocess.run(["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": "socket"}, cwd=directory, capture_output=True, text=True, check=True)
            assert "the key" in listed.stdout
        close()
        assert not (directory / "socket").exists()
    finally:
        process.terminate()
        process.wait()
