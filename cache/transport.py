"""Transport: HTTP exchanges with one registry and the hosts that it sends us to; the only door to urllib3."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import ssl
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as TimedOut

from cache.registry_errors import RegistryError, RegistryUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from urllib3.response import BaseHTTPResponse

T = TypeVar("T")

TIMEOUT = urllib3.Timeout(connect=15, read=90)
"""Seconds to reach a host, and for each wait for bytes; registries think up to a minute when a large upload ends."""
PROBE_TIMEOUT = urllib3.Timeout(connect=5, read=5)
"""Seconds to find out whether a nearby registry speaks TLS."""
MOST_REDIRECTS = 5
"""Registries need one (to their storage), mirrors two."""
MOST_ERROR_BODY = 64 << 10
"""Bytes of an error's body that are read; the specification's form of it has a few hundred."""
CONNECTIONS = 16
"""Kept open a host: more parallel layers than any client moves at once."""


class RetryPolicy(NamedTuple):
    """How long to go on. The defaults outlast a registry's restart or fail-over but not a user's patience."""

    tries: int = 5
    first: float = 0.3
    """Seconds before the second try; doubled each time."""
    most: float = 8.0
    """Seconds between two tries, unless the server asks for more."""
    most_asked: float = 60.0
    """Seconds that a server may ask for in Retry-After. Beyond that we fail at once: waiting less would be rude."""

    def pause(self, failures: int, error: RegistryError) -> None:
        """Sleep before the next try; raises the error again when it is final."""
        if not error.transient or failures >= self.tries or error.retry_after > self.most_asked:
            raise error
        backoff = min(self.most, self.first * 2 ** (failures - 1))
        # Jitter, so that many workers that failed together do not come back together.
        time.sleep(max(error.retry_after, backoff * random.uniform(0.5, 1.0)))  # noqa: S311 - not a secret

    def run(self, action: Callable[[], T]) -> T:
        """Do the action until it succeeds, fails for good, or the tries are used up."""
        failures = 0
        while True:
            try:
                return action()
            except RegistryError as error:
                failures += 1
                self.pause(failures, error)


def is_loopback(address: str) -> bool:
    """Whether `HOST[:PORT]` is this machine by its spelling; no name is resolved."""
    host = ""
    try:
        host = urlsplit(f"//{address}").hostname or ""
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Transport:
    """Exchanges with one registry; any number of threads may use it at once.

    Whether it is asked over https or http: https always, except that a loopback host, or any host with `insecure=True`,
    is asked over plain http when https does not answer there; these may also have any certificate. `insecure=False`
    allows neither, not even on loopback. Proxies come from the usual variables (HTTPS_PROXY, NO_PROXY).
    """

    def __init__(self, host: str, address: str, insecure: bool | None) -> None:
        """host: as users know it, for messages. address: where it is, `NAME[:PORT]`."""
        self.host = host
        self.address = address
        self.lenient = is_loopback(address) if insecure is None else insecure
        self.insecure = bool(insecure)
        self._base = "" if self.lenient else f"https://{address}"
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, bool], urllib3.PoolManager] = {}

    def base(self) -> str:
        """`https://ADDRESS` or `http://ADDRESS`."""
        with self._lock:
            if not self._base:
                self._base = self._probe()
            return self._base

    def is_home(self, url: str) -> bool:
        """Whether a URL or path is at the registry itself, so that it may see our credentials."""
        return _origin(urljoin(self.base(), url)) == _origin(self.base())

    def close(self) -> None:
        """Close all idle connections; the object stays usable."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()

    def send(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
        body: bytes | Callable[[], Iterable[bytes]] | None = None,
        follow: bool = True,
    ) -> BaseHTTPResponse:
        """One exchange, redirects included unless `follow` is off; the body of the answer is still to be read.

        url: absolute, or a path at the registry. authorization: sent to the origin of the first URL only, never after
        a redirect elsewhere. `what` completes «cannot …» in errors, which never show a URL: signatures hide in them.
        """
        url = urljoin(self.base(), url)
        first = _origin(url)
        for _ in range(MOST_REDIRECTS + 1):
            own = _origin(url) == first
            sent = {"User-Agent": "buildgraph", "Accept-Encoding": "identity", **(headers or {})}
            if authorization and own:
                sent["Authorization"] = authorization
            response = self._exchange(method, url, what, sent, body() if callable(body) else body)
            location = response.headers.get("Location")
            redirects = (301, 302, 303, 307, 308) if method in ("GET", "HEAD") else (307, 308)
            if not follow or response.status not in redirects or not location:
                if response.status == 401 and not own:
                    # Its challenge must not make us show the registry's credentials to someone else.
                    response.close()
                    raise self._error(what, "it sent us to a host that asks for a login of its own")
                return response
            self.read(response, MOST_ERROR_BODY, what)
            url = self._redirected(url, location, what)
        raise self._error(what, f"more than {MOST_REDIRECTS} redirects")

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Turn what urllib3 raises while an answer is read into a transient RegistryUnreachable."""
        try:
            yield
        except (HTTPError, OSError) as error:
            raise self._error(what, _reason(error), transient=not _untrusted(error)) from error

    def read(self, response: BaseHTTPResponse, most: int, what: str) -> bytes:
        """The body up to `most` bytes, and one more if there are more; the connection is given back or closed."""
        found = bytearray()
        with self.guarded(what):
            try:
                for chunk in response.stream(64 << 10, decode_content=False):
                    found += chunk
                    if len(found) > most:
                        return bytes(found[: most + 1])
                response.release_conn()
            finally:
                response.close()  # does nothing to a connection that was given back
        return bytes(found)

    def _exchange(
        self, method: str, url: str, what: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None
    ) -> BaseHTTPResponse:
        with self.guarded(what):
            return self._pool(url).request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )

    def _redirected(self, url: str, location: str, what: str) -> str:
        try:
            target = urljoin(url, location)
            scheme = urlsplit(target).scheme
        except ValueError:
            raise self._error(what, "it redirects to something that is no URL") from None
        if scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:") and not self.insecure):
            raise self._error(what, f"it redirects from https to {scheme[:20]!r}, which is not safe")
        return target

    def _probe(self) -> str:
        plain = f"http://{self.address}"
        url = f"https://{self.address}"
        try:
            response = self._pool(url, locked=True).request(
                "GET", f"{url}/v2/", timeout=PROBE_TIMEOUT, retries=False, redirect=False, preload_content=False
            )
        except (NewConnectionError, ConnectTimeoutError) as error:
            if urlsplit(url).port is None:
                return plain  # https has a port of its own here
            raise self._error("reach the registry", _reason(error), transient=True) from error
        except (HTTPError, OSError):
            return plain
        response.close()
        return url

    def _pool(self, url: str, locked: bool = False) -> urllib3.PoolManager:
        # Any certificate will do for the lenient registry itself, never for hosts that it names.
        trusting = self.lenient and urlsplit(url).netloc == self.address
        proxy = _proxy(url)
        with contextlib.nullcontext() if locked else self._lock:
            pool = self._pools.get((proxy, trusting))
            if pool is None:
                pool = self._pools[proxy, trusting] = _make_pool(proxy, trusting)
            return pool

    def _error(self, what: str, reason: str, *, transient: bool = False) -> RegistryError:
        return RegistryUnreachable(f"cannot {what}: {self.host}: {reason}", host=self.host, transient=transient)


def _make_pool(proxy: str, trusting: bool) -> urllib3.PoolManager:
    context = None
    if trusting:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=CONNECTIONS, ssl_context=context)
    return urllib3.PoolManager(maxsize=CONNECTIONS, ssl_context=context)


def _proxy(url: str) -> str:
    """The proxy that the environment names for the URL, `""` for none. Loopback is never asked through one."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    from urllib.request import getproxies_environment, proxy_bypass  # 20 ms, only behind a proxy

    parts = urlsplit(url)
    if is_loopback(parts.netloc) or proxy_bypass(parts.netloc):
        return ""
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    netloc = parts.netloc.lower()
    return parts.scheme, netloc.removesuffix({"https": ":443", "http": ":80"}.get(parts.scheme, ""))


def _untrusted(error: Exception) -> bool:
    return isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def _reason(error: Exception) -> str:
    """Why in a few words. Only classes and system texts: urllib3's own texts hold whole URLs."""
    if isinstance(error, NameResolutionError):
        return "its name cannot be resolved"
    # A refused connection counts as a time-out in urllib3's hierarchy.
    if isinstance(error, TimedOut) and not isinstance(error, NewConnectionError):
        return "it did not answer in time"
    if isinstance(error, ProxyError):
        return "the proxy refuses or fails"
    if _untrusted(error):
        return "its TLS certificate is not trusted"
    if isinstance(error, SSLError):
        return "it does not speak TLS as we do"
    cause = error.__cause__ or error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "the connection broke off"
