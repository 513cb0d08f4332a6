"""Caller: one channel to a server; every call has a deadline, some tries, and an end once nothing works."""

from __future__ import annotations

import itertools
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from cache.errors import EnvironmentProblem
from cache.remote.trouble import TRANSIENT, RemoteTrouble, Unreachable, trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.remote_settings import RemoteSettings

SECONDS = 10.0
"""For a call that moves little."""
RATE = 256 << 10
"""Bytes a second that a call has time for besides: over anything slower most steps are faster made again."""
TRIES = 3
PAUSE = 0.2
"""Seconds before the second try, on average; before each further one twice as long."""
FULL_PAUSE = 1.5
"""The same if the server says that it takes no more."""
MOST_FAILURES = 3
"""Calls that failed for good, one after the other, after which the server is left alone."""
MAX_MESSAGE = 8 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Else gRPC soon asks once a minute at most on a stream that says nothing, such as an idle worker's.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
)


class Caller:
    """May be used by several threads at once. down: no call will be made any more."""

    def __init__(self, settings: RemoteSettings) -> None:
        """Raises EnvironmentProblem for a certificate that cannot be read. Nothing is sent yet."""
        self.settings = settings
        self.down = False
        self._failures = 0
        self._silent_since: float | None = None
        self._lock = threading.Lock()
        self.metadata: tuple[tuple[str, str | bytes], ...] = (
            (("authorization", f"Bearer {settings.token}"),) if settings.token else ()
        )
        self.channel = self._open()

    def _open(self) -> grpc.Channel:
        settings = self.settings
        if not settings.tls:
            return grpc.insecure_channel(settings.target, _OPTIONS)
        ca, key, certificate = map(_read, (settings.ca, settings.key, settings.certificate))
        _check_certificates(settings)
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        return grpc.secure_channel(settings.target, credentials, _OPTIONS)

    def call(
        self, method: Callable[..., Any], request: Any, *, size: int = 0, seconds: float = SECONDS, tries: int = TRIES
    ) -> Any:
        """The answer. size: bytes that are moved. Raises RemoteTrouble."""

        def once(deadline: float) -> Any:
            return method(request, timeout=deadline, metadata=self.metadata)

        return self.attempt(once, size=size, seconds=seconds, tries=tries)

    def attempt(
        self, once: Callable[[float], Any], *, size: int = 0, seconds: float = SECONDS, tries: int = TRIES
    ) -> Any:
        """What `once`, given the seconds that it may take, returns in the end. Raises RemoteTrouble."""
        deadline = seconds + size / RATE
        for number in itertools.count(1):
            self._check_wanted()
            try:
                answer = once(deadline)
            except grpc.RpcError as error:
                # What had its time for so many bytes, and did not end, would not end the next time.
                slow = size > 0 and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                again = error.code() in TRANSIENT and not slow
                if again and (self._is_patient() or number < tries):
                    time.sleep(_pause(min(number, TRIES), error.code()))
                    continue
                raise self.failed(error) from None
            except ValueError:
                self._check_wanted()  # the channel was closed meanwhile
                raise
            if answer is None:
                # What came could not be read, and gRPC says nothing of it.
                if number < tries:
                    continue
                raise RemoteTrouble(f"the remote {self.settings.origin} gave an answer that cannot be read")
            self._failures, self._silent_since = 0, None
            return answer
        raise AssertionError("the last try returns or raises")

    def _check_wanted(self) -> None:
        if self.down:
            raise Unreachable(f"the remote {self.settings.origin} is left alone, since it does not answer")

    def _is_patient(self) -> bool:
        """Whether a server that does not answer is asked again, however often that was tried. Calls have one patience
        together, so that a server that is gone for good does not cost it again with each."""
        since = self._silent_since = self._silent_since or time.monotonic()
        return time.monotonic() < since + self.settings.patience

    def stream(self, method: Callable[..., Any], request: Any, *, size: int) -> Iterator[Any]:
        """The messages of one answer, tried once. Raises grpc.RpcError."""
        answers: Iterator[Any] = method(request, timeout=SECONDS + size / RATE, metadata=self.metadata)
        return answers

    def failed(self, error: grpc.RpcError) -> RemoteTrouble:
        """Count a call that failed for good, and say what was the matter."""
        found = trouble(error, self.settings)
        with self._lock:
            # An answer, whatever it says, shows that somebody is there.
            self._failures = self._failures + 1 if isinstance(found, Unreachable) else 0
            if self._failures >= MOST_FAILURES:
                self.down = True
        return found

    def close(self) -> None:
        self.channel.close()


def _pause(number: int, code: grpc.StatusCode) -> float:
    longest = FULL_PAUSE if code is grpc.StatusCode.RESOURCE_EXHAUSTED else PAUSE
    # Many builds that failed together should not come back together.
    return longest * float(1 << (number - 1)) * random.uniform(0.5, 1.5)  # noqa: S311


def _check_certificates(settings: RemoteSettings) -> None:
    """Raises EnvironmentProblem that names the file: gRPC would say no more than that it cannot connect."""
    if not (settings.ca or settings.certificate):
        return
    import ssl

    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except (ssl.SSLError, ValueError):
        raise EnvironmentProblem(f"{settings.ca} holds no certificate in PEM form") from None
    if settings.certificate:
        try:
            # Without a password: who has to type one cannot build in CI.
            context.load_cert_chain(settings.certificate, settings.key, password="")
        except (ssl.SSLError, ValueError):
            text = f"{settings.certificate} and {settings.key} are not a certificate and its key in PEM form"
            raise EnvironmentProblem(text, hint="the key must have no password") from None


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}") from None
