"""ImageConfig: what an image says about itself beside its layers, in docker's extended OCI form."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from cache.digest import OciDigest
from cache.document import Document, render
from cache.platform import Platform

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The environment entry that an image without a PATH gets (docker's default for Linux)."""
MOST_CONFIG = 8 << 20
"""Bytes of a config; the largest seen in the wild have a few hundred kilobytes of history."""

_TOP = frozenset(
    ("created", "author", "architecture", "variant", "os", "os.version", "os.features", "config", "rootfs", "history")
)
_CONFIG = frozenset(
    {"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"}
    | {"ArgsEscaped", "Healthcheck", "OnBuild", "Shell"}
)


class Healthcheck(NamedTuple):
    """HEALTHCHECK; durations in nanoseconds, 0 is «as inherited». `test` starts with NONE, CMD or CMD-SHELL."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class History(NamedTuple):
    """One line of an image's history. `created` is RFC 3339 as it was written, `""` when not known."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(NamedTuple):
    """The config of one image.

    env: `NAME=value` in order. exposed_ports, volumes, labels: sorted. extra, config_extra: fields that we do not
    know, as (name, JSON text), kept as they are. An empty list and an absent one are the same, as to docker.
    """

    architecture: str
    os: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    created: str = ""
    author: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    diff_ids: tuple[OciDigest, ...] = ()
    history: tuple[History, ...] = ()
    config_extra: tuple[tuple[str, str], ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    @classmethod
    def empty(cls, platform: Platform) -> ImageConfig:
        """The config that `FROM scratch` starts with, as BuildKit's: working directory `/` and a PATH."""
        return cls(
            platform.architecture,
            platform.os,
            platform.variant,
            platform.os_version,
            platform.os_features,
            env=(DEFAULT_PATH,),
            working_dir="/",
        )

    @classmethod
    def parse(cls, data: bytes, what: str = "the image config") -> ImageConfig:
        """Read untrusted bytes; CorruptBlob for anything that docker could not have written."""
        top = Document.parse(data, what, MOST_CONFIG)
        config = top.child("config") or Document({}, what)
        rootfs = top.child("rootfs") or Document({}, what)
        if rootfs.text("type") not in ("", "layers"):
            raise rootfs.wrong("type", "layers")
        return cls(
            architecture=top.text("architecture"),
            os=top.text("os"),
            variant=top.text("variant"),
            os_version=top.text("os.version"),
            os_features=top.strings("os.features"),
            created=top.text("created"),
            author=top.text("author"),
            user=config.text("User"),
            exposed_ports=config.names("ExposedPorts"),
            env=config.strings("Env"),
            entrypoint=config.strings("Entrypoint"),
            cmd=config.strings("Cmd"),
            volumes=config.names("Volumes"),
            working_dir=config.text("WorkingDir"),
            labels=config.pairs("Labels"),
            stop_signal=config.text("StopSignal"),
            args_escaped=config.flag("ArgsEscaped"),
            healthcheck=_healthcheck(config.child("Healthcheck")),
            on_build=config.strings("OnBuild"),
            shell=config.strings("Shell"),
            diff_ids=tuple(OciDigest(text) for text in rootfs.strings("diff_ids")),
            history=tuple(map(_history, top.children("history"))),
            config_extra=config.rest(_CONFIG),
            extra=top.rest(_TOP),
        )

    @property
    def platform(self) -> Platform:
        """Normalised: an image that says aarch64 is for arm64."""
        return Platform.of(self.os, self.architecture, self.variant, self.os_version, self.os_features)

    def with_path(self) -> ImageConfig:
        """The same, with docker's default PATH where there is none."""
        if any(entry.startswith("PATH=") for entry in self.env):
            return self
        return self._replace(env=(DEFAULT_PATH, *self.env))

    @property
    def image_id(self) -> str:
        """`sha256:…` of the config, which names the image whatever its layers are compressed with."""
        return f"sha256:{hashlib.sha256(self.to_json()).hexdigest()}"

    def to_json(self) -> bytes:
        """The bytes that name the image: docker's names, its order (top level alphabetical), empty fields left out."""
        config: dict[str, object] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in sorted(self.exposed_ports)},
            "Env": self.env,
            "Entrypoint": self.entrypoint,
            "Cmd": self.cmd,
            "Volumes": {path: {} for path in sorted(self.volumes)},
            "WorkingDir": self.working_dir,
            "Labels": dict(sorted(self.labels)),
            "StopSignal": self.stop_signal,
            "ArgsEscaped": self.args_escaped,
            "Healthcheck": _healthcheck_fields(self.healthcheck),
            "OnBuild": self.on_build,
            "Shell": self.shell,
        }
        top: dict[str, object] = {
            "author": self.author,
            "created": self.created,
            "history": [_without_empty(entry._asdict()) for entry in self.history],
            "os.features": self.os_features,
            "os.version": self.os_version,
            "variant": self.variant,
        }
        always = {
            "architecture": self.architecture,
            "config": _without_empty(config) | _loaded(self.config_extra),
            "os": self.os,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }
        return render(dict(sorted((_without_empty(top) | always | _loaded(self.extra)).items())))


def _without_empty(fields: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value}


def _loaded(extra: tuple[tuple[str, str], ...]) -> dict[str, object]:
    return {key: json.loads(text) for key, text in extra}


def _history(document: Document) -> History:
    return History(
        document.text("created"),
        document.text("created_by"),
        document.text("author"),
        document.text("comment"),
        document.flag("empty_layer"),
    )


def _healthcheck(document: Document | None) -> Healthcheck | None:
    if document is None:
        return None
    return Healthcheck(
        document.strings("Test"),
        document.integer("Interval"),
        document.integer("Timeout"),
        document.integer("StartPeriod"),
        document.integer("StartInterval"),
        document.integer("Retries"),
    )


def _healthcheck_fields(check: Healthcheck | None) -> dict[str, object] | None:
    if check is None:
        return None
    names = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    return _without_empty(dict(zip(names, check, strict=True)))
