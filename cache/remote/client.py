"""Client: what a server can do, and its calls, by our own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from buildgraph.v1 import bytestream_pb2_grpc, remote_execution_pb2_grpc, team_pb2, team_pb2_grpc
from buildgraph.v1 import remote_execution_pb2 as pb

from cache.errors import CorruptBlob
from cache.promises import Origin, Promise
from cache.remote.action_results import action_text, decode_action_result, digest_of, name_by
from cache.remote.caller import Caller
from cache.remote.trouble import Denied, Missing, RemoteTrouble, Unreachable, Unsupported, trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cache.promises import Names
    from cache.recipe import Recipe
    from cache.remote_settings import RemoteSettings
    from cache.result import Result

CONNECT_SECONDS = 5.0
"""For the first answer: a server that is not there should not hold a build for long."""
BATCH_LIMIT = 3_500_000
"""Bytes of blobs in one message, unless the server wants fewer; gRPC's usual limit is 4 MiB."""
MOST_DIGESTS = 20_000
"""In one request: 1.5 MB."""
DIGEST_BYTES = 80
"""That one digest, or key, takes in a message."""
AT_ONCE = 64
"""Calls without an answer yet: what a server of our kind answers a single caller at the same time."""


class Abilities(NamedTuple):
    """server_id: of one of our own servers, "" for another. name: who we are there. writes: whether we may write."""

    function: str
    batch: int
    zstd: bool
    split: bool
    splice: bool
    server_id: str
    version: str
    name: str
    writes: bool

    @property
    def is_ours(self) -> bool:
        return bool(self.server_id)


class Client:
    """One server. May be used by several threads at once; all methods raise RemoteTrouble.

    denied: those of the namespaces to read that we may not, and what the server said. reads: the others, in order.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        """Connect, and learn what the server can do. Raises EnvironmentProblem for a certificate that is none."""
        self.settings = settings
        self.caller = Caller(settings)
        channel = self.caller.channel
        self.cas = remote_execution_pb2_grpc.ContentAddressableStorageStub(channel)
        self.actions = remote_execution_pb2_grpc.ActionCacheStub(channel)
        self.team = team_pb2_grpc.TeamStub(channel)
        self.streams = bytestream_pb2_grpc.ByteStreamStub(channel)
        self.denied: dict[str, Denied] = {}
        try:
            self.can = self._greet()
        except BaseException:
            self.caller.close()
            raise

    def _greet(self) -> Abilities:
        settings = self.settings
        namespace = settings.reads[0] if settings.reads else ""
        request = team_pb2.HelloRequest(instance_name=settings.write if settings.write is not None else namespace)
        hello = self.team.Hello.future(request, timeout=CONNECT_SECONDS, metadata=self.caller.metadata)
        answer = self._capabilities()
        low, high = answer.low_api_version, answer.high_api_version
        if low.major > 2 or high.major < 2:
            text = f"it speaks version {low.major}.{low.minor} to {high.major}.{high.minor} of the protocol, not 2"
            raise RemoteTrouble(f"the remote {settings.origin}: {text}")
        cache = answer.cache_capabilities
        function = next((name for number, name in _FUNCTIONS.items() if number in cache.digest_functions), "")
        if not function:
            raise RemoteTrouble(f"the remote {settings.origin} names blobs neither by BLAKE3 nor by SHA256")
        said = self._who_we_are(request, hello)
        zstd = pb.Compressor.ZSTD
        return Abilities(
            function=function,
            batch=min(BATCH_LIMIT, cache.max_batch_total_size_bytes or BATCH_LIMIT),
            zstd=zstd in cache.supported_compressors and zstd in cache.supported_batch_update_compressors,
            split=cache.split_blob_support,
            splice=cache.splice_blob_support,
            server_id=said.server_id,
            version=said.version,
            name=said.name,
            writes="write" in said.scopes if said.server_id else cache.action_cache_update_capabilities.update_enabled,
        )

    def _who_we_are(self, request: team_pb2.HelloRequest, sent: Any) -> team_pb2.HelloResponse:
        """What one of our own servers says of itself and of us; empty for another. sent: the request, under way."""
        error = sent.exception()
        try:
            if error is not None and not isinstance(said := trouble(error, self.settings), Unreachable):
                raise said
            answer: team_pb2.HelloResponse | None = sent.result() if error is None else None
            if answer is None:
                answer = self.caller.call(self.team.Hello, request, seconds=CONNECT_SECONDS, tries=1)
            return answer
        except Unsupported:
            return team_pb2.HelloResponse()

    def _capabilities(self) -> pb.ServerCapabilities:
        """As the first namespace says it that we may read; if there is none, the one that is written to."""
        settings = self.settings
        get = remote_execution_pb2_grpc.CapabilitiesStub(self.caller.channel).GetCapabilities
        requests = {name: pb.GetCapabilitiesRequest(instance_name=name) for name in settings.reads}
        # All at once: then it is known from the beginning which are left out.
        sent = {
            name: get.future(request, timeout=CONNECT_SECONDS, metadata=self.caller.metadata)
            for name, request in requests.items()
        }
        found: pb.ServerCapabilities | None = None
        for name, request in requests.items():
            error: Any = sent[name].exception()
            try:
                if error is not None and isinstance(said := trouble(error, settings), Denied):
                    raise said
                if found is None and error is None:
                    found = sent[name].result()
                if found is None:
                    found = self.caller.call(get, request, seconds=CONNECT_SECONDS, tries=1)
            except Denied as denied:
                self.denied[name] = denied
        if found is None and settings.write is not None and settings.write not in settings.reads:
            request = pb.GetCapabilitiesRequest(instance_name=settings.write)
            found = self.caller.call(get, request, seconds=CONNECT_SECONDS, tries=2)
        if found is None:
            raise next(iter(self.denied.values()), RemoteTrouble(f"of {settings.origin} no namespace is used"))
        return found

    @property
    def reads(self) -> list[str]:
        return [name for name in self.settings.reads if name not in self.denied]

    @property
    def function(self) -> pb.DigestFunction.Value.ValueType:
        """As messages have it."""
        return pb.DigestFunction.BLAKE3 if self.can.function == "blake3" else pb.DigestFunction.SHA256

    @property
    def most_digests(self) -> int:
        """In one request, which must not be larger than a batch of blobs."""
        return max(1, min(MOST_DIGESTS, self.can.batch // DIGEST_BYTES))

    # results

    def find_results(self, namespace: str, kind: str, keys: Sequence[str]) -> dict[str, tuple[Recipe, Promise]]:
        """Key → (recipe, promise) of those that are there and can be read. kind: recipe, content or layer."""
        texts = {name_by(self.can.function, action_text(kind, key)): key for key in keys}
        origin = Origin(self.settings.origin, namespace, self.can.function)
        found = {}
        for name, message in self.action_results(namespace, list(texts)):
            try:
                found[texts[name]] = decode_action_result(message, origin)
            except (CorruptBlob, LookupError):
                continue  # of another version, or somebody else's: as good as none
        return found

    def action_results(self, namespace: str, names: list[str]) -> Iterator[tuple[str, pb.ActionResult]]:
        """(name, message) of those that are there. names: `HASH/SIZE` of what stands for an action."""
        answers = self._find_ours if self.can.is_ours else self._find_one_by_one
        yield from answers(namespace, names)

    def _find_ours(self, namespace: str, names: list[str]) -> Iterator[tuple[str, pb.ActionResult]]:
        while names:
            now, names = names[: self.most_digests], names[self.most_digests :]
            answer = self.caller.call(
                self.team.FindActionResults,
                team_pb2.FindActionResultsRequest(
                    instance_name=namespace, digest_function=self.function, action_digests=map(digest_of, now)
                ),
            )
            for each in answer.found:
                yield f"{each.action_digest.hash}/{each.action_digest.size_bytes}", each.result
            names = [f"{each.hash}/{each.size_bytes}" for each in answer.left_out] + names

    def _find_one_by_one(self, namespace: str, names: list[str]) -> Iterator[tuple[str, pb.ActionResult]]:
        """Of a server that knows no batches: many at the same time."""
        for start in range(0, len(names), AT_ONCE):
            requests = {
                name: pb.GetActionResultRequest(
                    instance_name=namespace, action_digest=digest_of(name), digest_function=self.function
                )
                for name in names[start : start + AT_ONCE]
            }
            yield from self.all_of(self.actions.GetActionResult, requests, missing_is_fine=True)

    def all_of(
        self, method: Any, requests: Mapping[str, Any], *, missing_is_fine: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Answers to calls that are made at the same time, AT_ONCE at most; each is tried again if it has to be."""
        names = list(requests)
        for start in range(0, len(names), AT_ONCE):
            now = names[start : start + AT_ONCE]
            if self.caller.down:
                self.caller.call(method, requests[now[0]])  # raises
            sent = {
                name: method.future(requests[name], timeout=CONNECT_SECONDS * 2, metadata=self.caller.metadata)
                for name in now
            }
            for name in now:
                try:
                    try:
                        found = sent[name].result()
                        yield name, self.caller.call(method, requests[name]) if found is None else found
                    except grpc.RpcError as error:
                        if missing_is_fine and error.code() is grpc.StatusCode.NOT_FOUND:
                            continue
                        yield name, self.caller.call(method, requests[name])
                except Missing:
                    if not missing_is_fine:
                        raise

    def put_results(self, namespace: str, results: Iterable[tuple[str, str, Recipe, Result, Names]]) -> None:
        """(kind, key, what that came to, result, names of its blobs): of which all blobs are there.

        Blobs are verified where they arrive, results cannot be. But a server answers with what it keeps, so that what
        was damaged on its way is seen here, and sent once more.
        """
        from cache.remote.action_results import encode_action_result

        requests: dict[str, Any] = {}
        for kind, key, recipe, result, names in results:
            name = name_by(self.can.function, action_text(kind, key))
            requests[name] = pb.UpdateActionResultRequest(
                instance_name=namespace, action_digest=digest_of(name), digest_function=self.function,
                action_result=encode_action_result(recipe, result, names),
            )  # fmt: skip
        for name, kept in self.all_of(self.actions.UpdateActionResult, requests):
            if kept != requests[name].action_result:
                self.caller.call(self.actions.UpdateActionResult, requests[name])

    # records of the team

    def put_records(self, namespace: str, records: Sequence[tuple[str, str, bytes]]) -> None:
        """(kind, key, value) each; nothing happens on a server that is none of ours."""
        if not self.can.is_ours:
            return
        batch: list[team_pb2.Record] = []
        size = 0
        for kind, key, value in records:
            if len(value) > min(MAX_RECORD, self.can.batch):
                continue
            if batch and size + len(value) > self.can.batch:
                self._put_records(namespace, batch)
                batch, size = [], 0
            batch.append(team_pb2.Record(kind=kind, key=key, value=value))
            size += len(value) + len(key) + 20
        if batch:
            self._put_records(namespace, batch)

    def _put_records(self, namespace: str, batch: list[team_pb2.Record]) -> None:
        request = team_pb2.PutRecordsRequest(instance_name=namespace, records=batch)
        self.caller.call(self.team.PutRecords, request, size=BATCH_LIMIT)

    def find_records(self, namespace: str, kind: str, keys: Iterable[str]) -> dict[str, bytes]:
        """Those that are there. kind: preimages, sources, builds, places or forms."""
        found: dict[str, bytes] = {}
        left = list(dict.fromkeys(keys)) if self.can.is_ours else []
        while left:
            now, left = left[: self.most_digests], left[self.most_digests :]
            request = team_pb2.FindRecordsRequest(instance_name=namespace, kind=kind, keys=now)
            answer = self.caller.call(self.team.FindRecords, request, size=BATCH_LIMIT)
            found.update((each.key, each.value) for each in answer.records)
            left = [*answer.left_out, *left]
        return found

    def list_builds(self, namespace: str, project: str = "", made_by: str = "", limit: int = 0) -> dict[str, bytes]:
        """Records of `builds` by their keys, the newest first. project, made_by: "" for any."""
        request = team_pb2.ListBuildsRequest(
            instance_name=namespace, project=project, made_by=made_by, limit=limit
        )  # fmt: skip
        answer = self.caller.call(self.team.ListBuilds, request, size=BATCH_LIMIT)
        return {each.key: each.value for each in answer.records}

    def close(self) -> None:
        self.caller.close()


MAX_RECORD = 1 << 20
"""Bytes of a record that a server takes."""
_FUNCTIONS = {pb.DigestFunction.BLAKE3: "blake3", pb.DigestFunction.SHA256: "sha256"}
"""The better one first."""
