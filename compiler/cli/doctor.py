"""`buildgraph doctor`: what this machine offers for builds, and what to do about what it lacks."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import BuildgraphError
from cache.lmdb_store import LmdbStore
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.cli.remote_options import add_remote_options, remote_settings
from compiler.cli.streams import say
from compiler.progress.text import printable
from worker import seccomp
from worker.namespaces import NEEDED_IDS, subordinate_ids
from worker.runtime import SEARCH_PATH, find_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.remote_settings import RemoteSettings

LITTLE_SPACE = 2 << 30
"""Bytes below which a build of anything with a compiler in it will not fit."""


class Finding(NamedTuple):
    """status: ok, note or bad. remedy: what to do, "" if nothing."""

    status: str
    subject: str
    text: str
    remedy: str = ""


def run(arguments: Sequence[str]) -> int:
    """Exit code 0 if builds with RUN can work here, 4 if not."""
    parser = Parser(prog="buildgraph doctor", description="Check what this machine offers for builds.")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    add_remote_options(parser)
    parsed = parser.parse_args(arguments)
    defaults = settings.load()
    store = parsed.store or defaults.store
    remote = remote_settings(parsed, defaults.remote)
    checks: list[Callable[[], Finding]] = [_kernel, _runtime, _filter, lambda: _space(store)]
    if os.geteuid() != 0:
        checks += [lambda: _subordinate("newuidmap", "/etc/subuid"), lambda: _subordinate("newgidmap", "/etc/subgid")]
    findings = [check() for check in checks]
    if all(finding.status != "bad" for finding in findings):
        findings.append(_isolation(store))
    findings.append(_worker(ready=all(finding.status != "bad" for finding in findings)))
    if remote is not None:
        findings.append(_remote(remote))  # last: from then on nothing should fork
    marks = {"ok": "✓", "note": "•", "bad": "✗"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.status]} {finding.subject}: {finding.text}")
        if finding.remedy:
            lines.append(f"  → {finding.remedy}")
    bad = any(finding.status == "bad" for finding in findings)
    lines.append("builds with RUN cannot work here yet" if bad else "everything that a build needs is here")
    say("".join(f"{line}\n" for line in lines))
    return 4 if bad else 0


def _worker(*, ready: bool) -> Finding:
    """Whether this machine can be one of a fleet; builds do not need that."""
    if not ready:
        return Finding("note", "worker", "this machine cannot be one of a fleet: a worker needs all that a build needs")
    text = f"this machine can be one of a fleet, with {os.cpu_count() or 1} slots"
    return Finding("ok", "worker", f"{text}: `buildgraph worker --join URL`, with a token for read,execute")


def _remote(remote: RemoteSettings) -> Finding:
    """The team's cache: a build works without it, so nothing about it is bad."""
    from cache.remote.client import Client

    try:
        client = Client(remote)
    except BuildgraphError as error:
        return Finding("note", "remote", printable(error.message), "builds go on without it")
    can = client.can
    client.close()
    text = f"{remote.origin} answers"
    text += f": buildgraph {printable(can.version)}, you are {printable(can.name)}" if can.is_ours else ", not ours"
    text += f"; reads {', '.join(name or '(default)' for name in client.reads) or 'nothing'}"
    if client.denied:
        text += f", not {', '.join(name or '(default)' for name in client.denied)}, which it does not allow"
    if remote.write is None:
        return Finding("ok", "remote", f"{text}, publishes nothing")
    where = remote.write or "(default)"
    if can.writes:
        return Finding("ok", "remote", f"{text}, publishes in {where}")
    return Finding("note", "remote", f"{text}, may not publish in {where}", "ask for a token with the scope write")


def _kernel() -> Finding:
    release = os.uname().release
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    if numbers < [5, 11]:
        return Finding("bad", "kernel", f"Linux {release}", "Linux 5.11 or newer is needed")
    if numbers < [6, 12]:
        return Finding("note", "kernel", f"Linux {release}: it extracts layers; 6.12 or newer mounts them as they are")
    return Finding("ok", "kernel", f"Linux {release}")


def _runtime() -> Finding:
    try:
        runtime = find_runtime()
    except BuildgraphError as error:
        return Finding("bad", "runtime", error.message, error.hint)
    if runtime.name != "crun":
        return Finding("note", "runtime", runtime.path, "apt-get install crun: it starts faster")
    return Finding("ok", "runtime", runtime.path)


def _filter() -> Finding:
    try:
        size = len(seccomp.compile_bpf())
    except BuildgraphError as error:
        return Finding("bad", "system call filter", error.message, error.hint)
    return Finding("ok", "system call filter", f"compiled to {size} bytes")


def _space(store: str) -> Finding:
    path = store
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    free = shutil.disk_usage(path).free
    text = f"{free / (1 << 30):.1f} GiB free for {store}"
    if not os.access(path, os.W_OK):
        return Finding("bad", "store", f"{store} cannot be written", "choose another with --store or BUILDGRAPH_STORE")
    return Finding("note" if free < LITTLE_SPACE else "ok", "store", text)


def _subordinate(program: str, path: str) -> Finding:
    user = pwd.getpwuid(os.getuid()).pw_name
    if shutil.which(program, path=SEARCH_PATH) is None:
        return Finding("bad", "ordinary user", f"{program} is missing", "apt-get install uidmap")
    ids = subordinate_ids(path, user, os.getuid())
    if ids is None or ids.size < NEEDED_IDS:
        option = "--add-subuids" if "uid" in path else "--add-subgids"
        return Finding("bad", "ordinary user", f"{path} gives {user} no ids", f"usermod {option} 100000-165535 {user}")
    return Finding("ok", "ordinary user", f"{path} gives {user} {ids.size} ids from {ids.first}")


def _isolation(store: str) -> Finding:
    """Start what a build starts, in a child, since it changes the process for good."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, _try_isolation(store).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        status, _, text = file.read().decode().partition(" ")
    os.waitpid(child, 0)
    if status == "bad" or not text:
        message, _, hint = text.partition("\n")
        return Finding("bad", "isolation", message or "it ended without a word", hint)
    return Finding("ok", "isolation", text)


def _try_isolation(store: str) -> str:
    from cache.images import Images
    from worker.library import LayerLibrary
    from worker.machine import open_machine

    try:
        os.makedirs(store, mode=0o700, exist_ok=True)
        # A store beside the real one: on its filesystem, but not in its way.
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=store) as directory:
            trial = LmdbStore(directory)
            machine = open_machine(trial, LayerLibrary(trial, Images(trial)))
            name = machine.snapshotter.name
            machine.keeper.close()
            trial.close()
    except BuildgraphError as error:
        return f"bad {error.message}\n{error.hint}"
    except OSError as error:
        return f"bad {error.strerror}\n"
    how = {"erofs": "layers are mounted from their tars", "dirs": "layers are extracted before they are mounted"}[name]
    who = "root" if not machine.rootless else "an ordinary user with subordinate ids"
    return f"ok namespaces and mounts work, as {who}; {how}"


