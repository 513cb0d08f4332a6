"""Certificates: the server's TLS files, read again when they change, for gRPC and for the HTTP port."""

from __future__ import annotations

import os
import ssl
import threading
from typing import TYPE_CHECKING

import grpc

from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from cache.server.journal import Journal

MAX_FILE = 4 << 20
"""Bytes of one file: a bundle of all public authorities has 220 KiB."""


class Certificates:
    """May be used by several threads at once."""

    def __init__(self, cert: str, key: str, client_ca: str, journal: Journal) -> None:
        """Paths of PEM files. client_ca: whoever calls must show a certificate by one of these authorities; "" for
        nobody must. Raises EnvironmentProblem with what is wrong."""
        self._paths = tuple(path for path in (cert, key, client_ca) if path)
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._journal = journal
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._configuration, self._context = self._load()
        self._seen = self._stamp

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which asks for the newest before each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # None is allowed, says its description
            require_client_authentication=bool(self._client_ca),
        )

    def context(self) -> ssl.SSLContext:
        """For the HTTP port; nobody needs a certificate there. The newest."""
        self._refresh()
        return self._context

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What is new since the last handshake; None for nothing."""
        self._refresh()
        with self._lock:
            if self._seen == self._stamp:
                return None
            self._seen = self._stamp
            return self._configuration

    def _refresh(self) -> None:
        with self._lock:
            stamp = self._look()
            if stamp == self._stamp:
                return
            try:
                self._configuration, self._context = self._load()
            except EnvironmentProblem as problem:
                # Between the certificate's renewal and its key's they do not fit: the next handshake looks again.
                self._journal.write("error", text=f"{problem.message}; the certificate that was read before stays")
                return
            self._stamp = stamp
            self._journal.write("certificates", text="read again")

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in self._paths:
            try:
                status = os.stat(path)
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(found)

    def _load(self) -> tuple[grpc.ServerCertificateConfiguration, ssl.SSLContext]:
        """Both, after all files were found good together. Raises EnvironmentProblem."""
        chain, key = _read(self._cert), _read(self._key)
        roots = _read(self._client_ca) if self._client_ca else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # Without a password: OpenSSL would ask the terminal for one.
            context.load_cert_chain(self._cert, self._key, password=lambda: b"")
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            text = f"the certificate {self._cert} and the key {self._key} cannot be used: {_words(reason)}"
            hint = "give a chain and its own key in PEM form, without a password"
            raise EnvironmentProblem(text, hint=hint) from None
        if roots is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=roots.decode("ascii", "replace"))
            except (ssl.SSLError, ValueError):
                raise EnvironmentProblem(f"{self._client_ca} holds no certificates of authorities") from None
        return grpc.ssl_server_certificate_configuration([(key, chain)], roots), context


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise EnvironmentProblem(f"{path} is larger than {MAX_FILE >> 20} MiB")
    return data


def _words(reason: str) -> str:
    """OpenSSL's own, such as KEY_VALUES_MISMATCH, for people."""
    return reason.replace("_", " ").lower()
