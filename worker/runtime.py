"""The OCI runtime: which program starts containers here, and how it is called."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

from cache.errors import EnvironmentProblem

NAMES = ("crun", "runc")
"""In order of preference: crun starts in 6 ms with a compiled filter, runc in 20."""
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runtime(NamedTuple):
    """name: crun or runc. path: absolute."""

    name: str
    path: str

    def command(self, state: str, bundle: str, container: str) -> list[str]:
        """The argument vector that runs the container in `bundle` and exits as its process does."""
        if self.name == "crun":
            return [self.path, "--root", state, "--cgroup-manager=disabled", "run", "-b", bundle, container]
        return [self.path, "--root", state, "run", "-b", bundle, container]


def find_runtime() -> Runtime:
    """The first runtime that is installed; BUILDGRAPH_RUNTIME names another one. Raises EnvironmentProblem."""
    wanted = os.environ.get("BUILDGRAPH_RUNTIME", "")
    if wanted:
        path = shutil.which(wanted, path=SEARCH_PATH)
        name = os.path.basename(wanted)
        if path is None or name not in NAMES:
            raise EnvironmentProblem(
                f"BUILDGRAPH_RUNTIME={wanted} is not a runtime that is installed", hint="it may be crun or runc"
            )
        return Runtime(name, path)
    for name in NAMES:
        path = shutil.which(name, path=SEARCH_PATH)
        if path is not None:
            return Runtime(name, path)
    raise EnvironmentProblem("no container runtime is installed", hint="apt-get install crun")
