"""A build that speaks to a scheduler by the stubs alone, and gives it actions of its own making."""

from __future__ import annotations

import io
import os
import queue
import tarfile
import tempfile
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import grpc
from blake3 import blake3
from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import fleet_pb2_grpc
from buildgraph.v1 import remote_execution_pb2 as re_pb
from buildgraph.v1 import remote_execution_pb2_grpc as re_services

from cache.digest import Digest
from cache.layer_reader import import_layer
from cache.result import Layer
from worker.action import Action
from worker.cache_mounts import mount_key
from worker.fleet.action_body import Body, encode_body
from worker.fleet.protocol import VERSION
from worker.operation import Run, key_form
from worker.run_key import run_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from worker.operation import Mount

SECONDS = 30.0


class Made:
    """A layer and its bytes."""

    def __init__(self, tar: bytes) -> None:
        with tempfile.TemporaryFile() as file:
            found = import_layer(iter([tar]), file.fileno())
        self.tar, self.listing = tar, found.index.encode()
        self.layer = Layer(str(found.diff_id), found.index.content(), Digest.of(tar), Digest.of(self.listing))


def layer_of(directory: Path) -> Made:
    """What is in a directory, owned by root."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(directory.rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(directory)))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            with path.open("rb") if info.isreg() else io.BytesIO() as file:
                tar.addfile(info, file)
    return Made(packed.getvalue())


class Orders:
    """One build."""

    def __init__(self, address: str, token: str, namespace: str = "") -> None:
        self.namespace = namespace
        self._metadata = [("authorization", f"Bearer {token}")]
        self._channel = grpc.insecure_channel(address)
        self._cas = re_services.ContentAddressableStorageStub(self._channel)
        self._requests: queue.SimpleQueue[pb.BuildRequest | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._events: list[pb.BuildEvent] = []
        self._ended = ""
        self._requests.put(pb.BuildRequest(open=pb.OpenBuild(version=VERSION, build=uuid.uuid4().hex, instance_name=namespace)))
        self._call = fleet_pb2_grpc.FleetStub(self._channel).Build(iter(self._requests.get, None), metadata=self._metadata)
        threading.Thread(target=self._read, daemon=True).start()
        self.take("opened")

    def _read(self) -> None:
        try:
            for event in self._call:
                self._note(event)
        except grpc.RpcError as error:
            self._ended = f"{error.code()} {error.details()}"
        self._note(None)

    def _note(self, event: pb.BuildEvent | None) -> None:
        with self._changed:
            if event is not None:
                self._events.append(event)
            self._ended = self._ended or ("" if event is not None else "well")
            self._changed.notify_all()

    def send(self, **fields: Any) -> None:
        self._requests.put(pb.BuildRequest(**fields))

    def take(self, kind: str, key: str = "", seconds: float = SECONDS) -> Any:
        """The next event of a kind, of an action if one is named."""
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                for event in self._events:
                    if event.WhichOneof("message") == kind and key in ("", getattr(getattr(event, kind), "key", "")):
                        self._events.remove(event)
                        return getattr(event, kind)
                left = until - time.monotonic()
                assert left > 0, f"no {kind} came: {self._ended} {self._events}"
                self._changed.wait(left)

    def end_of(self, key: str, seconds: float = SECONDS) -> tuple[Any, bytes]:
        """How an action ended, and what it printed until then."""
        done = self.take("done", key, seconds)
        with self._changed:
            return done.outcome, b"".join(event.log.data for event in self._events if event.log.key == key)

    def put(self, *made: Made) -> None:
        """Have layers on the server, in this build's namespace."""
        for data in [blob for each in made for blob in (each.tar, each.listing)]:
            request = re_pb.BatchUpdateBlobsRequest(instance_name=self.namespace, digest_function=re_pb.DigestFunction.BLAKE3)
            request.requests.add(digest=re_pb.Digest(hash=blake3(data).hexdigest(), size_bytes=len(data)), data=data)
            answer = self._cas.BatchUpdateBlobs(request, metadata=self._metadata, timeout=SECONDS)
            assert answer.responses[0].status.code == 0, answer

    def blob(self, name: str) -> bytes:
        """A small one that the server has in this namespace."""
        digest = re_pb.Digest(hash=name[:64], size_bytes=int(name[65:]))
        request = re_pb.BatchReadBlobsRequest(instance_name=self.namespace, digests=[digest], digest_function=re_pb.DigestFunction.BLAKE3)
        answer = self._cas.BatchReadBlobs(request, metadata=self._metadata, timeout=SECONDS).responses[0]
        assert answer.status.code == 0, answer.status
        return answer.data

    def run(self, script: str, layers: Iterable[Layer], mounts: tuple[Mount, ...] = (), *, insecure: bool = False, **order: Any) -> str:
        """Want a command; the key of its action, which nobody had before."""
        env = (("PATH", "/bin"), ("NONCE", os.urandom(8).hex()))
        run = Run(("/bin/sh", "-c", script), env, "/", "", "default", "buildkitsandbox", mounts, insecure=insecure)
        given = tuple(layers)
        key = run_key(key_form(run), "linux/amd64", [layer.content for layer in given], (), ())
        return self.want(script, Body(Action(key, run, (given,), "linux/amd64")), **order)

    def want(self, script: str, body: Body, *, anew: bool = False, **order: Any) -> str:
        """Want an action as it stands."""
        key = body.action.key
        action = pb.ActionOrder(key=key, body=encode_body(body), **order)
        caches = [mount_key(each) for each in body.run.mounts if each.type == "cache"]
        needs = pb.Needs(platform="linux/amd64", caches=caches)
        self.send(execute=pb.ExecuteAction(action=action, needs=needs, text=f"RUN {script}", anew=anew))
        return key

    def close(self) -> None:
        self._call.cancel()
        self._channel.close()
