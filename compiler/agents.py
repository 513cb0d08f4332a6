"""ssh agents for RUN --mount=type=ssh: the user's own by its socket, or one that is started for key files."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING

from cache.errors import EnvironmentProblem, UsageError
from worker.mounts import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.store import Store
    from compiler.options import SshSource

START_SECONDS = 5.0
ADD_SECONDS = 30.0
_POLL_SECONDS = 0.01


class Agents:
    """Sockets by id. Close it: agents that were started for key files end then."""

    def __init__(self, sources: Sequence[SshSource], store: Store) -> None:
        """Raises UsageError for what is neither a socket nor a key, EnvironmentProblem if an agent does not start."""
        self._started: list[subprocess.Popen[bytes]] = []
        self.sockets: dict[str, str] = {}
        try:
            for source in sources:
                self.sockets[source.id] = self._socket(source, store)
        except BaseException:
            self.close()
            raise

    def _socket(self, source: SshSource, store: Store) -> str:
        try:
            modes = [os.stat(path).st_mode for path in source.paths]
        except OSError as error:
            raise UsageError(f"--ssh {source.id}: cannot read {error.filename}: {error.strerror}") from None
        if len(modes) == 1 and stat.S_ISSOCK(modes[0]):
            return source.paths[0]
        if not all(stat.S_ISREG(mode) for mode in modes):
            raise UsageError(f"--ssh {source.id}: give one socket of an agent, or key files")
        return self._start(source, store)

    def _start(self, source: SshSource, store: Store) -> str:
        program = shutil.which("ssh-agent")
        if program is None or shutil.which("ssh-add") is None:
            raise EnvironmentProblem("key files for --ssh need ssh-agent", hint="apt-get install openssh-client")
        directory = store.scratch("ssh")
        os.mkdir(directory, 0o700)
        # A socket's name may only have 107 bytes, whatever the store's directory is called.
        process = subprocess.Popen(
            [program, "-D", "-a", "agent"], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        self._started.append(process)
        path = os.path.join(directory, "agent")
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EnvironmentProblem("ssh-agent did not start")
            time.sleep(_POLL_SECONDS)
        # No terminal and no askpass: a key with a passphrase fails at once instead of waiting for somebody.
        environment = {**os.environ, "SSH_AUTH_SOCK": "agent", "SSH_ASKPASS_REQUIRE": "never"}
        done = subprocess.run(
            ["ssh-add", *source.paths], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=ADD_SECONDS, check=False, start_new_session=True,
        )  # fmt: skip
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip()[-300:]
            raise UsageError(f"--ssh {source.id}: the key cannot be used: {reason}")
        return path

    def close(self) -> None:
        for process in self._started:
            process.terminate()
            process.wait()
        self._started.clear()
