"""Pulse: whether a server is still there, by a small question now and then that nobody waits for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
from buildgraph.v1 import team_pb2, team_pb2_grpc

if TYPE_CHECKING:
    from cache.remote.caller import Caller

ANSWER_SECONDS = 2.0
"""For the answer, which moves nothing; and between two questions. A connection that was cut without a word is noticed
by gRPC itself only after its keepalive, 40 seconds."""
SILENCE = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED))
"""What else comes is an answer, whatever it says."""


class Pulse:
    """May be used by several threads at once."""

    def __init__(self, caller: Caller, namespace: str) -> None:
        self._caller = caller
        self._request = team_pb2.HelloRequest(instance_name=namespace)
        self._lock = threading.Lock()
        self._asked: Any = None
        self._asked_at = 0.0
        self._is_silent = False

    def beats(self) -> bool:
        """Whether the last question was answered, true before there was one; asks the next one if it is time."""
        with self._lock:
            if self._asked is not None and self._asked.done():
                self._is_silent = self._asked.code() in SILENCE
                self._asked = None
            if self._asked is None and time.monotonic() - self._asked_at >= ANSWER_SECONDS:
                self._ask()
            return not self._is_silent

    def wait(self) -> bool:
        """Whether a question is answered now."""
        hello = team_pb2_grpc.TeamStub(self._caller.channel).Hello
        try:
            hello(self._request, timeout=ANSWER_SECONDS, metadata=self._caller.metadata)
        except grpc.RpcError as error:
            return error.code() not in SILENCE
        except ValueError:  # as below
            return False
        return True

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        hello = team_pb2_grpc.TeamStub(self._caller.channel).Hello
        try:
            self._asked = hello.future(self._request, timeout=ANSWER_SECONDS, metadata=self._caller.metadata)
        except ValueError:  # the channel was closed: the server is left alone
            self._is_silent = True
