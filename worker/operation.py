"""Operations: what a node does, without what it does it to; the part of an action that keys take as it stands."""

from __future__ import annotations

from typing import Any, NamedTuple


class Mount(NamedTuple):
    """A mount of one RUN.

    type: bind, cache, tmpfs, secret or ssh. target: absolute path. input: which of the node's inputs a bind or the
    start of a cache comes from; None for none. source: path in that input. size: bytes, of a tmpfs; 0 is half of
    memory. mode, uid, gid: of a cache directory, secret or agent's socket. env: variable that gets the secret's value.
    """

    type: str
    target: str
    input: int | None = None
    source: str = ""
    read_only: bool = False
    id: str = ""
    sharing: str = "shared"
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    required: bool = False
    env: str = ""


class Script(NamedTuple):
    """A heredoc that is executed itself: mounted read-only at /dev/pipes/NAME."""

    name: str
    body: str


class Run(NamedTuple):
    """Run a program in the root filesystem that is input 0.

    In its key: everything here. Not in its key: values of secrets, contents of cache mounts, proxy variables (they
    come with the order to execute), the clock, the machine's resolv.conf.
    user: as USER gives it; resolved in the root filesystem. network: default or none. hosts: extra /etc/hosts lines.
    shm_size: bytes of /dev/shm. ulimits: (name, soft, hard). insecure: all capabilities, no system call filter.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    user: str
    network: str
    hostname: str
    mounts: tuple[Mount, ...] = ()
    scripts: tuple[Script, ...] = ()
    hosts: tuple[str, ...] = ()
    shm_size: int = 64 << 20
    ulimits: tuple[tuple[str, int, int], ...] = ()
    insecure: bool = False


class Pattern(NamedTuple):
    """What a COPY takes from one of the node's inputs. extract: unpack it if it is a tar archive (ADD)."""

    input: int
    path: str
    extract: bool = False


class Inline(NamedTuple):
    """A heredoc source of COPY: a file of this name with this text."""

    name: str
    text: str


class Copy(NamedTuple):
    """Put files into the root filesystem that is input 0.

    destination: absolute; a trailing slash says directory. owner: `user[:group]` or "" for root (context) or the
    source's (images and stages). mode: as --chmod has it, "" for the source's. link: do not look at what is there.
    from_context: the sources are files of a context, which belong to root. parents: keep the directories that lead to
    each source, from the context's root or from a `/./` in its path on.
    """

    sources: tuple[Pattern | Inline, ...]
    destination: str
    owner: str = ""
    mode: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    from_context: bool = True
    parents: bool = False


class MakeDirectory(NamedTuple):
    """WORKDIR: make a directory and its parents where they are missing. owner: as USER gives it."""

    path: str
    owner: str = ""


Operation = Run | Copy | MakeDirectory


def key_form(value: Any) -> Any:
    """An operation as plain data for a key: types by name, fields by name, so that no two read alike."""
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        if fields is None:
            return [item if isinstance(item, str) else key_form(item) for item in value]
        form = {name: key_form(item) for name, item in zip(fields, value, strict=True)}
        form["is"] = type(value).__name__
        return form
    return value
