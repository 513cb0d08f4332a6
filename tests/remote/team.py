"""A cache server in this process, machines that use it, and a proxy that stands between and does what networks do."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent / "build"))

import grpc
from buildgraph.v1 import remote_execution_pb2 as pb
from program import Program, Ran

from cache.lmdb_store import LmdbStore
from cache.run_dir import remove_tree
from cache.server.access import OpenGuard
from cache.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.server.access import Scope


class Meter:
    """Bytes of blobs that the server took and gave."""

    def __init__(self) -> None:
        self.taken = self.given = self.hits = self.misses = 0

    def received(self, namespace: str, size: int) -> None:
        self.taken += size

    def sent(self, namespace: str, size: int) -> None:
        self.given += size

    def asked(self, namespace: str, hits: int, misses: int) -> None:
        self.hits += hits
        self.misses += misses


class CacheServer:
    """A real server over loopback."""

    def __init__(
        self, directory: Path, *scopes: Scope, port: int = 0, interceptors: tuple[grpc.ServerInterceptor, ...] = ()
    ) -> None:
        self.directory = directory
        self._interceptors = interceptors
        self.meter = Meter()
        self._store: LmdbStore | None = None
        self._scopes = scopes or ("read", "write")
        self.start(port)

    def start(self, port: int = 0) -> None:
        self._store = LmdbStore(str(self.directory))
        self._server = Server(self._store, f"127.0.0.1:{port}", OpenGuard(*self._scopes), meter=self.meter, interceptors=self._interceptors)
        self._server.start()
        self.port = self._server.port

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    @property
    def store(self) -> LmdbStore:
        assert self._store is not None
        return self._store

    def stop(self) -> None:
        if self._store is not None:
            self._server.stop(0)
            self._store.close()
            self._store = None

    def forget_blobs(self, smallest: int = 0) -> int:
        """Lose every blob of so many bytes in all namespaces, as a clean-up would; how many."""
        members = [key for key, _ in self.store.scan("members") if int(key.rpartition("/")[2]) >= smallest]
        with self.store.transaction() as view:
            for key in members:
                view.delete("members", key)
        return len(members)

    def change_members(self, change: Callable[[Path], None], smallest: int = 0) -> None:
        """Damage the files of blobs of so many bytes."""
        for path in (self.directory / "blobs").glob("??/*"):
            if path.stat().st_size >= smallest:
                path.chmod(0o600)
                change(path)


class Another(grpc.ServerInterceptor):  # type: ignore[misc]
    """Makes the server one that knows nothing of buildgraph: SHA256 only, no chunks, no zstd, no service of ours.

    version: of the protocol that it says it speaks.
    """

    def __init__(self, version: int = 2) -> None:
        self._version = version
        self.called: list[str] = []

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        name = details.method.rpartition("/")[2]
        self.called.append(name)
        if "buildgraph.v1.Team" in details.method or name in ("SplitBlob", "SpliceBlob"):
            return None
        handler = continuation(details)
        if name != "GetCapabilities":
            return handler

        def answer(request: Any, context: grpc.ServicerContext) -> pb.ServerCapabilities:
            found = handler.unary_unary(request, context)
            found.low_api_version.major = found.high_api_version.major = self._version
            cache = found.cache_capabilities
            del cache.digest_functions[:], cache.supported_compressors[:], cache.supported_batch_update_compressors[:]
            cache.digest_functions.append(pb.DigestFunction.SHA256)
            cache.split_blob_support = cache.splice_blob_support = False
            return found

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


class Machine:
    """A machine with a store of its own. Projects are at the same place for all: `project` under `root/NAME`."""

    def __init__(
        self, root: Path, busybox: Path, name: str, remote: str, arguments: tuple[str, ...], env: dict[str, str] | None
    ) -> None:
        self.root = root / name
        self.root.mkdir(exist_ok=True)
        self.remote = remote
        self.arguments = arguments
        self.program = Program(self.root, busybox, {"BUILDGRAPH_TOKEN": "", **(env or {})})
        self.store = self.program.store

    def project(self, dockerfile: str, files: dict[str, str | bytes] | None = None) -> Path:
        return self.program.project(dockerfile, files)

    def build(self, context: Path, *arguments: str | Path, **options: Any) -> Ran:
        return self.program.build(context, "--remote", self.remote, *self.arguments, *arguments, **options)

    def alone(self, context: Path, *arguments: str | Path) -> Ran:
        """The same without the remote."""
        return self.program.build(context, *arguments)

    def plan(self, context: Path, *arguments: str | Path) -> dict[str, Any]:
        return self.program.plan(context, "--remote", self.remote, *self.arguments, *arguments)

    def call(self, *arguments: str | Path) -> Ran:
        return self.program.call(*arguments)

    def assert_clean(self) -> None:
        """I6, and nothing of what a remote told makes the store inconsistent."""
        assert str(self.store) not in Path("/proc/self/mounts").read_text()
        for name in ("runs", "leases"):
            left = list((self.store / name).iterdir()) if (self.store / name).exists() else []
            assert not left, f"left in {name}: {left}"
        if self.store.exists():
            checked = self.call("cache", "verify")
            assert checked.code == 0, checked.stdout + checked.stderr
            remove_tree(str(self.store))


def warnings(ran: Ran) -> list[str]:
    return [event["text"] for event in ran.events if event["event"] == "warned"]


def tasks(ran: Ran) -> list[str]:
    return [event["name"] for event in ran.events if event["event"] == "task" and event["status"] == "done"]


class Proxy:
    """Passes bytes between clients and a server. allow: bytes from the server until each connection is cut, None for
    any. delay: seconds before each piece. refuse: take no connection. damage: changes what comes from the server."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.allow: int | None = None
        self.delay = 0.0
        self.refuse = False
        self.damage: Callable[[bytes], bytes] = lambda data: data
        self.cuts = 0
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refuse:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16 << 10):
                if self.delay:
                    time.sleep(self.delay)
                if answers:
                    data = self.damage(data)
                    if self.allow is not None and passed + len(data) > self.allow:
                        target.sendall(data[: self.allow - passed])
                        self.cuts += 1
                        break
                passed += len(data)
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.close()


def loaded_modules(machine: Machine, *arguments: str | Path) -> set[str]:
    """What the program had imported at its end."""
    code = (
        "import sys\nfrom compiler.cli.main import main\n"
        "code = main(sys.argv[1:])\nsys.stdout.write(chr(10).join(['', *sorted(sys.modules)]))\nsys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=machine.program.env, capture_output=True, text=True,
        check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def records(machine: Machine, table: Any) -> dict[str, bytes]:
    store = LmdbStore(str(machine.store))
    try:
        return dict(store.scan(table))
    finally:
        store.close()


