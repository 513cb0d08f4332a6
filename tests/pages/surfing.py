"""Sites of a server: pages as a browser gets them, and builds as clients publish them."""

from __future__ import annotations

import base64
import contextlib
import http.client
from typing import TYPE_CHECKING, Any

import grpc
from buildgraph.v1 import team_pb2, team_pb2_grpc

if TYPE_CHECKING:
    from serving import Serving

    from cache.build_record import BuildRecord


def get(serving: Serving, path: str, token: str = "", user: str = "me", method: str = "GET") -> tuple[int, dict[str, str], str]:
    """Status, headers with names in lower case, body."""
    address = serving.web.partition("//")[2]
    with contextlib.closing(http.client.HTTPConnection(address, timeout=20)) as connection:
        headers = {}
        if token:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()


def publish(serving: Serving, record: BuildRecord, namespace: str = "main", token: str = "", *more: tuple[str, str, bytes]) -> str:
    """Put a build there; the path of its page. more: records of other kinds."""
    kind, key, value = record.encode()
    metadata: Any = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(serving.address) as channel:
        request = team_pb2.PutRecordsRequest(instance_name=namespace)
        for each in ((kind, key, value), *more):
            request.records.add(kind=each[0], key=each[1], value=each[2])
        team_pb2_grpc.TeamStub(channel).PutRecords(request, metadata=metadata, timeout=10)
    return f"/builds/{namespace}/{key}"
