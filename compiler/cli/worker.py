"""`buildgraph worker`: this machine as one of a fleet, from joining to draining."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import signal
import threading
from typing import TYPE_CHECKING, NamedTuple

from cache.disk_usage import disk_bytes
from cache.errors import BuildgraphError, EnvironmentProblem, UsageError
from cache.remote_settings import FORM
from cache.size_text import parse_size
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.cli.remote_options import remote_settings
from compiler.cli.streams import say
from compiler.progress.text import printable
from worker.labels import parse_label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.lmdb_store import LmdbStore
    from cache.remote_settings import RemoteSettings
    from worker.fleet.offer import Offer
    from worker.library import LayerLibrary
    from worker.run import Machine

INTERRUPTED = 130
"""128 + SIGINT."""
KEY = "worker.key"
LOCK = "worker.lock"
"""In the store's directory."""
MAX_SLOTS = 1024
MAX_LABELS = 64
LEAST_CACHE = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class WorkerOptions(NamedTuple):
    """memory, layer_cache: bytes, None for what fits this machine. name: "" for this machine's."""

    remote: RemoteSettings
    store: str
    name: str
    slots: int
    memory: int | None
    layer_cache: int | None
    labels: dict[str, str]
    cordoned: bool


def run(arguments: Sequence[str]) -> int:
    """The exit code, or an exception."""
    return _Worker(_options(_parser().parse_args(list(arguments)))).run()


def _parser() -> Parser:
    parser = Parser(
        prog="buildgraph worker",
        description="Run steps of a team's builds on this machine. SIGTERM lets it finish what it has.",
        epilog="The token that it needs may execute: `buildgraph serve token create --scope read,execute`.",
    )
    add = parser.add_argument
    add("--join", required=True, metavar="URL", help=f"the server that gives out steps, {FORM}")
    add("--slots", type=int, default=None, metavar="N", help="steps at the same time (default: this machine's CPUs)")
    add("--memory", metavar="SIZE", help="what steps may take together: 16GB, 80%% (default: this machine's)")
    add("--name", default="", metavar="NAME", help="what it is called, one of its kind (default: this machine's name)")
    add("--label", action="append", default=[], metavar="K=V", help="what it has, for steps that ask for it")
    add("--store", default="", metavar="DIR", help="where layers are kept (BUILDGRAPH_STORE)")
    add("--layer-cache", metavar="SIZE", help="bytes of layers that stay at hand (default: 20GB, or 10%% of the disk)")
    add("--cordon", action="store_true", help="take nothing until `buildgraph fleet uncordon NAME`")
    add("--token-file", metavar="FILE", help="the token that the server gave out (BUILDGRAPH_TOKEN)")
    add("--ca", metavar="FILE", help="authorities whose servers are believed, in PEM form")
    add("--cert", metavar="FILE", help="this worker's certificate, for servers that ask for one")
    add("--key", metavar="FILE", help="its key")
    add("--allow-plaintext-token", action="store_true", help="send the token without TLS, whoever listens")
    return parser


def _options(parsed: argparse.Namespace) -> WorkerOptions:
    """Raises UsageError, EnvironmentProblem."""
    defaults = settings.load()
    table = dict(defaults.remote)
    for name in ("token-file", "ca", "cert", "key"):
        given = getattr(parsed, name.replace("-", "_"))
        if given is not None:
            table[name] = given
    if parsed.token_file is not None:
        os.environ.pop("BUILDGRAPH_TOKEN", None)  # what was said here counts
    if parsed.allow_plaintext_token:
        table["allow-plaintext-token"] = True
    where = argparse.Namespace(remote=parsed.join, remote_read=[], remote_write=None, no_remote=False)
    remote = remote_settings(where, {name: value for name, value in table.items() if name not in ("read", "write")})
    if remote is None:
        raise UsageError("--join is empty", hint=f"give it the server's address, {FORM}")
    slots = (os.cpu_count() or 1) if parsed.slots is None else parsed.slots
    if not 1 <= slots <= MAX_SLOTS:
        raise UsageError(f"--slots {slots}: it must be from 1 to {MAX_SLOTS}")
    if parsed.name and not _NAME.fullmatch(parsed.name):
        raise UsageError(f"--name {parsed.name[:80]!r}: a name has 1 to 63 letters, digits, '.', '_' and '-'")
    store = os.path.abspath(parsed.store or defaults.store)
    return WorkerOptions(
        remote, store, parsed.name, slots, _memory(parsed.memory), _cache(parsed.layer_cache, store),
        _labels(parsed.label), parsed.cordon,
    )  # fmt: skip


def _memory(text: str | None) -> int | None:
    if text is None:
        return None
    from worker.fleet.offer import memory

    return _size("--memory", text, memory())


def _cache(text: str | None, store: str) -> int | None:
    if text is None:
        return None
    place = store
    while not os.path.exists(place):
        place = os.path.dirname(place)
    size = _size("--layer-cache", text, disk_bytes(place))
    if size < LEAST_CACHE:
        raise UsageError(f"--layer-cache {text}: less than {LEAST_CACHE >> 20} MiB hold no image")
    return size


def _size(option: str, text: str, whole: int) -> int:
    try:
        return parse_size(text, whole)
    except ValueError:
        raise UsageError(f"{option} {text[:40]!r} is no size", hint="as in 16GB, 512MB or 50%") from None


def _labels(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        try:
            name, value = parse_label(text)
        except ValueError as error:
            raise UsageError(f"--label {error}") from None
        found[name] = value
    if len(found) > MAX_LABELS:
        raise UsageError(f"a worker has at most {MAX_LABELS} labels")
    return found


class _Worker:
    """Everything that one worker consists of."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._saying = threading.Lock()
        self._signalled = False

    def run(self) -> int:
        from cache.lmdb_store import LmdbStore
        from worker.fleet.no_fetcher import NoFetcher
        from worker.library import LayerLibrary
        from worker.machine import open_machine

        store = LmdbStore(self._options.store)
        with contextlib.ExitStack() as held:
            held.callback(store.close)
            held.callback(os.close, _lock(store.directory))
            library = LayerLibrary(store, NoFetcher())
            # Forks, and so comes before anything that starts threads.
            machine = open_machine(store, library)
            held.callback(machine.keeper.close)
            store.start_writer()
            return self._work(store, library, machine, held)

    def _work(self, store: LmdbStore, library: LayerLibrary, machine: Machine, held: contextlib.ExitStack) -> int:
        from cache.remote.caller import Caller
        from cache.remote.local_chunks import trim
        from cache.run_dir import sweep
        from cache.server.tuning import tune_process
        from worker.execute import Executor
        from worker.fleet.agent import Agent
        from worker.fleet.agent_lease import Tools
        from worker.fleet.hot_layers import HotLayers, usual_limit
        from worker.fleet.identity import Identity
        from worker.fleet.inputs import Inputs
        from worker.fleet.mount_filler import MountFiller
        from worker.fleet.mount_publisher import MountPublisher
        from worker.fleet.publishing import Publishing
        from worker.fleet.remotes import Remotes

        options = self._options
        tune_process()
        sweep(store.directory)
        trim(store)
        identity = Identity.load(os.path.join(store.directory, KEY))
        remotes = Remotes(store, options.remote)
        held.callback(remotes.close)
        caller = Caller(options.remote)
        held.callback(caller.close)
        hot = HotLayers(store, library, machine, options.layer_cache or usual_limit(store.directory))
        hot.load()
        offer = self._offer(store, machine)
        executor = Executor(store, library, machine, made_by=f"worker@{offer.name}")
        held.callback(executor.close)
        inputs, publishing = Inputs(store, library, hot, remotes), Publishing(remotes, identity)
        mounts = MountPublisher(store, library, hot, inputs, publishing, self._say)
        filler = MountFiller(library, hot, inputs, self._say)
        tools = Tools(store, executor, inputs, publishing, hot, identity, machine.keeper, mounts, filler)
        agent = Agent(offer, tools, caller, self._say)
        self._take_signals(agent.drain, agent.interrupt)
        self._say(f"{offer.name} joins {options.remote.origin}")
        return 0 if agent.run() else INTERRUPTED

    def _offer(self, store: LmdbStore, machine: Machine) -> Offer:
        from compiler.cli.version import version
        from worker.fleet import offer

        options = self._options
        return offer.Offer(
            name=options.name or offer.own_name(),
            program=version(),
            slots=options.slots,
            memory=offer.memory() if options.memory is None else options.memory,
            platforms=offer.platforms(),
            features=offer.features(machine),
            labels=options.labels,
            caches=offer.caches(store.directory),
            cordoned=options.cordoned,
        )

    def _take_signals(self, drain: Callable[[], None], interrupt: Callable[[], None]) -> None:
        def stop(number: int, _: object) -> None:
            if self._signalled:
                os._exit(128 + number)  # the kernel ends the keeper, and with it every step
            self._signalled = True
            if number == signal.SIGINT:
                interrupt()
            else:
                drain()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    def _say(self, line: str) -> None:
        """From any thread; whoever closed standard output does not end the worker."""
        with self._saying, contextlib.suppress(OSError, BuildgraphError):
            say(f"{printable(line)}\n")


def _lock(store: str) -> int:
    """A descriptor that is held as long as the worker runs. Raises EnvironmentProblem."""
    try:
        fd = os.open(os.path.join(store, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to the store {store}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        hint = "give this one a directory of its own with --store"
        raise EnvironmentProblem(f"another worker runs on the store {printable(store)}", hint=hint) from None
    return fd
