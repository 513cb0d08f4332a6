"""Debian's docker-registry on a free port, and a push to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from cache import oci
from tests.cache.images import Image, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cache.registry import Registry

BCRYPT = "$2b$04$eYSPDeg9h3mXEjQRuDxrye4dCXEnHWNNp4wFkNwuBrObNe5o7yOp2"
"""Of the password «secret»; making one takes a library that the project does not need."""


@contextlib.contextmanager
def docker_registry(
    directory: Path, extra: dict[str, Any] | None = None, tls: dict[str, Any] | None = None
) -> Iterator[str]:
    for _ in range(5):  # somebody else may take the port before it does
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = _serve(directory, port, extra, tls)
        try:
            if not _listens(process, port, directory / "log"):
                if "address already in use" in (directory / "log").read_text():
                    continue
                raise RuntimeError((directory / "log").read_text())
            yield f"127.0.0.1:{port}"
            return
        finally:
            process.kill()
            process.wait()
    raise RuntimeError("no port stayed free")


def _serve(
    directory: Path, port: int, extra: dict[str, Any] | None, tls: dict[str, Any] | None
) -> subprocess.Popen[bytes]:
    config = {
        "version": "0.1",
        "log": {"level": "info"},  # so that it says where it listens
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"} | (tls or {}),
    } | (extra or {})
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    # One setting of the environment is enough to change the registry's configuration.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("REGISTRY_", "OTEL_"))}
    with open(directory / "log", "wb") as log:
        return subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log, env=environ
        )


def _listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    """Once it does: true. It is not asked, for somebody else might answer."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if f"listening on 127.0.0.1:{port}" in log.read_text():
            return True
        time.sleep(0.02)
    return False



def push(registry: Registry, repository: str, image: Image, tag: str) -> None:
    for digest, data in image.blobs.items():
        registry.upload_blob(repository, digest, len(data), pieces(data[:9], data[9:]))
    assert registry.put_manifest(repository, tag, image.manifest, oci.OCI_MANIFEST) == image.digest
