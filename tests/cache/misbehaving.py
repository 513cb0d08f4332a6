"""A registry and a token server that answer as a test says, and a client of them that does not wait long."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from cache import oci
from cache.registry import Registry
from cache.transport import RetryPolicy
from tests.cache.images import make_image
from tests.cache.registry_server import Reply, Request, Server, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAST = RetryPolicy(tries=4, first=0.005, most=0.02, most_asked=2.0)


def flaky(*replies: Reply) -> Callable[[Request], Reply]:
    """Answer the replies in turn, the last one for ever; the look for TLS is not counted."""
    left = list(replies)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


@contextlib.contextmanager
def misbehaving(answer: Callable[[Request], Reply], **options: Any) -> Iterator[tuple[Server, Registry]]:
    with serve(answer) as server, Registry(server.address, **{"retry": FAST} | options) as registry:
        yield server, registry


MANIFEST = make_image().manifest
BLOB = hashlib.shake_128(b"blob").digest(3_000_000)
GOOD = Reply(200, MANIFEST, (("Content-Type", f"{oci.OCI_MANIFEST}; charset=utf-8"),))


class TokenServer:
    """A registry with docker's token authentication; each token is good for some uses."""

    def __init__(self, realm: str = "", uses: int = 100, expires: int = 300) -> None:
        self.realm = realm
        self.uses = uses
        self.expires = expires
        self.made = 0
        self.left: dict[str, int] = {}
        self.port = 0

    def __call__(self, request: Request) -> Reply:
        if request.path == "/token":
            self.made += 1
            self.left[f"Bearer token-{self.made}"] = self.uses
            answer = {"access_token": f"token-{self.made}", "expires_in": self.expires}
            return Reply(200, json.dumps(answer).encode())
        sent = request.headers.get("authorization", "")
        if self.left.get(sent, 0) < 1:
            realm = self.realm or f"http://{request.headers['host']}/token"
            header = f'Bearer realm="{realm}",service="the, registry",scope="repository:other:delete",error="x"'
            return Reply(401, headers=(("WWW-Authenticate", header),))
        self.left[sent] -= 1
        if request.method == "POST":
            return Reply(202, headers=(("Location", "/v2/upload?state=1"),))
        return Reply(201) if request.method == "PUT" else GOOD
