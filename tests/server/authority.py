"""Certificates for tests, made by openssl."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Signs certificates in a directory of its own."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self.cert, self._key = directory / f"{name}.pem", directory / f"{name}.key"
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.cert, "-addext", "basicConstraints=critical,CA:TRUE",
        )  # fmt: skip

    def issue(self, name: str, *names: str, file: str = "") -> tuple[Path, Path]:
        """(certificate, key) of a common name, with alternative names such as `DNS:localhost`."""
        base = self._directory / (file or name)
        cert, key, request = base.with_suffix(".pem"), base.with_suffix(".key"), base.with_suffix(".csr")
        extensions = base.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "keyUsage=digitalSignature\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-CAcreateserial", "-days", "30",
            "-extfile", extensions, "-out", cert,
        )  # fmt: skip
        return cert, key

    def trust(self, client: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
        """What a client needs that trusts this authority, with a certificate of its own or none."""
        cert, key = (None, None) if client is None else (client[0].read_bytes(), client[1].read_bytes())
        return grpc.ssl_channel_credentials(self.cert.read_bytes(), key, cert)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
