"""Visible: which blobs a namespace has by itself.

Not asked by FindMissingBlobs: to a caller with the rights of a worker that says what the caller may see anywhere, and
takes it over into the namespace. Who orders a step there may see less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from buildgraph.v1 import bytestream_pb2

from cache.remote.caller import SECONDS
from cache.remote.trouble import Missing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.remote.client import Client

AT_ONCE = 32
"""Calls without an answer yet."""


def first_absent(client: Client, namespace: str, names: Iterable[str]) -> str | None:
    """The first of the blobs, named `HASH/SIZE` by BLAKE3, that the namespace does not show. Raises RemoteTrouble."""
    prefix = f"{namespace}/" if namespace else ""
    wanted = list(names)
    for start in range(0, len(wanted), AT_ONCE):
        now = wanted[start : start + AT_ONCE]
        calls = [
            client.streams.Read(
                bytestream_pb2.ReadRequest(resource_name=f"{prefix}blobs/blake3/{name}", read_limit=1),
                timeout=SECONDS, metadata=client.caller.metadata,
            )
            for name in now
        ]  # fmt: skip
        for name, call in zip(now, calls, strict=True):
            try:
                for _ in call:
                    pass
            except grpc.RpcError as error:
                found = client.caller.failed(error)
                if isinstance(found, Missing):
                    return name
                raise found from None
    return None
