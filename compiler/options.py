"""What a build is asked for, beside the Dockerfile itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cache.platform import Platform


class SecretSource(NamedTuple):
    """Where a secret's value comes from: a file or a variable of the environment."""

    id: str
    file: str = ""
    env: str = ""


class SshSource(NamedTuple):
    """An ssh agent that RUN --mount=type=ssh may talk to: its socket, or key files for one of our own."""

    id: str
    paths: tuple[str, ...]


class BuildOptions(NamedTuple):
    """Everything that can change what is built; how and where it is built is not here.

    contexts: (name, value) of --build-context. hosts: `NAME:IP` of --add-host. source_date_epoch: seconds, None if
    not given. epoch_source: what has the time that it shall be instead: `context`, a named context or a stage that only
    adds one thing from elsewhere. no_cache_stages: stages whose steps always run again. pull: resolve tags anew. allow:
    entitlements, as security.insecure.
    """

    platform: Platform
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    contexts: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    network: str = "default"
    hosts: tuple[str, ...] = ()
    shm_size: int = 64 << 20
    ulimits: tuple[tuple[str, int, int], ...] = ()
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    source_date_epoch: int | None = None
    epoch_source: str = ""
    secrets: tuple[SecretSource, ...] = ()
    ssh: tuple[SshSource, ...] = ()
    allow: tuple[str, ...] = ()
