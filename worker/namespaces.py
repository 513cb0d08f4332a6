"""The user namespace of a rootless build: an ordinary user as root over the subordinate ids that it was given."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from typing import NamedTuple

from cache.errors import EnvironmentProblem
from worker import mounts
from worker.runtime import SEARCH_PATH

MAP_SECONDS = 10.0
"""How long newuidmap and newgidmap may take; they take milliseconds."""
NEEDED_IDS = 65_535
"""Subordinate ids that ordinary images need: nobody is 65534."""


class IdRange(NamedTuple):
    """first: the first subordinate id on the host. size: how many."""

    first: int
    size: int


def subordinate_ids(path: str, user: str, uid: int) -> IdRange | None:
    """The first range that /etc/subuid or /etc/subgid gives a user, by name or number; None if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = [line.strip().split(":") for line in file]
    except OSError:
        return None
    for row in rows:
        if len(row) == 3 and row[0] in (user, str(uid)) and row[1].isdigit() and row[2].isdigit():
            return IdRange(int(row[1]), int(row[2]))
    return None


def enter_user_namespace() -> None:
    """Become root of a new user namespace; call it once, before any thread starts.

    Files of the user then belong to root, as in the image. Raises EnvironmentProblem with what is missing.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    commands = []
    for program, path, own in (("newuidmap", "/etc/subuid", uid), ("newgidmap", "/etc/subgid", gid)):
        found = shutil.which(program, path=SEARCH_PATH)
        if found is None:
            raise EnvironmentProblem(f"a build by an ordinary user needs {program}", hint="apt-get install uidmap")
        ids = subordinate_ids(path, user, uid)
        if ids is None or ids.size < NEEDED_IDS:
            raise EnvironmentProblem(
                f"the user {user} has no {NEEDED_IDS} subordinate ids in {path}",
                hint=f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )
        # Id 0 inside is the user; 1 and up are the subordinate ones.
        commands.append([found, str(os.getpid()), "0", str(own), "1", "1", str(ids.first), str(ids.size)])
    _map(commands)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _map(commands: list[list[str]]) -> None:
    """Unshare, and have a child that stayed outside write the maps."""
    unshared, told = os.pipe()
    answered, answer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        message = b""
        if os.read(unshared, 1):
            for command in commands:
                done = subprocess.run(command, capture_output=True, timeout=MAP_SECONDS, check=False)
                if done.returncode != 0:
                    message = done.stderr[:2000] or b"it failed"
                    break
        os.write(answer, message or b"ok")
        os._exit(0)
    try:
        mounts.unshare(mounts.CLONE_NEWUSER)
        os.write(told, b"x")
        reply = os.read(answered, 4096)
    except OSError as error:
        raise EnvironmentProblem(
            f"this machine does not let ordinary users make namespaces: {error.strerror}",
            hint="sysctl kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0",
        ) from None
    finally:
        for fd in (told, unshared, answered, answer):
            os.close(fd)
        os.waitpid(child, 0)
    if reply != b"ok":
        raise EnvironmentProblem(f"cannot map subordinate ids: {reply.decode(errors='replace').strip()}")
