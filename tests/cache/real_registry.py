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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"} | (tls or {}),
    } | (extra or {})
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    # One setting of the environment is enough to change the registry's configuration.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("REGISTRY_", "OTEL_"))}
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log, env=environ
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((directory / "log").read_text())
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()



def push(registry: Registry, repository: str, image: Image, tag: str) -> None:
    for digest, data in image.blobs.items():
        registry.upload_blob(repository, digest, len(data), pieces(data[:9], data[9:]))
    assert registry.put_manifest(repository, tag, image.manifest, oci.OCI_MANIFEST) == image.digest
