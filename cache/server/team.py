"""Team: buildgraph's own service, results in batches and the records that explain them."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from buildgraph.v1 import remote_execution_pb2, team_pb2_grpc
from buildgraph.v1 import team_pb2 as pb

from cache.build_record import BuildRecord
from cache.server.access import SCOPES
from cache.server.action_cache import find_results
from cache.server.limits import MAX_BATCH, MAX_DIGESTS
from cache.server.namespaces import checked_namespace
from cache.server.refusal import answered, invalid
from cache.server.shared_records import SharedRecords, checked_kind
from cache.server.wire_digest import function_of, message_of, names_of

if TYPE_CHECKING:
    import grpc

    from cache.server.core import Core

MAX_BUILDS = 1000
"""In one answer."""
_USUAL_BUILDS = 50


class Team(team_pb2_grpc.TeamServicer):
    """The service of that name in `buildgraph.v1`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._records = SharedRecords(core.shelf.store)

    @answered
    def Hello(self, request: pb.HelloRequest, context: grpc.ServicerContext) -> pb.HelloResponse:
        namespace = checked_namespace(request.instance_name)
        caller = self._core.guard.identify(context)
        return pb.HelloResponse(
            server_id=self._records.server_id,
            version=importlib.metadata.version("buildgraph"),
            name=caller.name,
            scopes=[scope for scope in SCOPES if caller.may(scope, namespace)],
            namespaces=caller.namespaces,
        )

    @answered
    def FindActionResults(
        self, request: pb.FindActionResultsRequest, context: grpc.ServicerContext
    ) -> pb.FindActionResultsResponse:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        core.guard.admit(context, "read", namespace)
        function = function_of(request.digest_function)
        if len(request.action_digests) > MAX_DIGESTS:
            raise invalid(f"ask for {MAX_DIGESTS} digests at most at once")
        names = list(dict.fromkeys(names_of(request.action_digests)))
        found = find_results(core.shelf, namespace, function, names)
        core.meter.asked(namespace, len(found), len(names) - len(found))
        response = pb.FindActionResultsResponse()
        size = 0
        for name, result in found.items():
            size += len(result) + 100
            if size > MAX_BATCH and response.found:
                response.left_out.append(message_of(name))
                continue
            message = remote_execution_pb2.ActionResult.FromString(result)
            response.found.add(action_digest=message_of(name), result=message)
        return response

    @answered
    def PutRecords(self, request: pb.PutRecordsRequest, context: grpc.ServicerContext) -> pb.PutRecordsResponse:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        caller = core.guard.admit(context, "write", namespace)
        with core.guard.accept(caller, namespace, sum(len(record.value) for record in request.records)):
            self._records.put(namespace, [(record.kind, record.key, record.value) for record in request.records])
        return pb.PutRecordsResponse()

    @answered
    def FindRecords(self, request: pb.FindRecordsRequest, context: grpc.ServicerContext) -> pb.FindRecordsResponse:
        namespace = checked_namespace(request.instance_name)
        self._core.guard.admit(context, "read", namespace)
        if len(request.keys) > MAX_DIGESTS:
            raise invalid(f"ask for {MAX_DIGESTS} keys at most at once")
        kind = checked_kind(request.kind)
        response = pb.FindRecordsResponse()
        size = 0
        for key, value in self._records.find(namespace, kind, list(dict.fromkeys(request.keys))):
            size += len(key) + len(value) + 30
            if size > MAX_BATCH and response.records:
                response.left_out.append(key)
            else:
                response.records.add(kind=kind, key=key, value=value)
        return response

    @answered
    def ListBuilds(self, request: pb.ListBuildsRequest, context: grpc.ServicerContext) -> pb.ListBuildsResponse:
        namespace = checked_namespace(request.instance_name)
        self._core.guard.admit(context, "read", namespace)
        if request.limit < 0:
            raise invalid("limit is 0 or more")
        limit = min(request.limit, MAX_BUILDS) or _USUAL_BUILDS
        response = pb.ListBuildsResponse()
        size = 0
        for key, value in self._records.newest(namespace, "builds"):
            if not _matches(key, value, request):
                continue
            size += len(key) + len(value) + 30
            if size > MAX_BATCH and response.records:
                break
            response.records.add(kind="builds", key=key, value=value)
            if len(response.records) == limit:
                break
        return response


def _matches(key: str, value: bytes, request: pb.ListBuildsRequest) -> bool:
    if not (request.project or request.made_by):
        return True
    build = BuildRecord.parse(key, value)
    if build is None or (request.made_by and build.made_by != request.made_by):
        return False
    project, wanted = build.project.rstrip("/"), request.project.strip("/")
    return not wanted or project.lstrip("/") == wanted or project.endswith(f"/{wanted}")
