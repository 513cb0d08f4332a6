"""Image configs: docker's fields are read, kept and written in docker's form."""

import json
from typing import Any

import pytest

from cache.digest import OciDigest
from cache.errors import CorruptBlob
from cache.image_config import DEFAULT_PATH, Healthcheck, History, ImageConfig
from cache.platform import Platform

DIGEST = OciDigest("sha256:" + "a1" * 32)

FULL: dict[str, Any] = {
    "architecture": "arm",
    "author": "me",
    "config": {
        "User": "app",
        "ExposedPorts": {"53/udp": {}, "80/tcp": {}},
        "Env": ["PATH=/bin", "Z=1", "A=2"],
        "Entrypoint": ["/bin/app"],
        "Cmd": ["--help"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"a": "1", "ü": "ö"},
        "StopSignal": "SIGINT",
        "ArgsEscaped": True,
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 3},
        "OnBuild": ["RUN x"],
        "Shell": ["/bin/bash", "-c"],
        "Hostname": "kept",
        "StopTimeout": 10,
    },
    "created": "2024-01-02T03:04:05.000000006Z",
    "custom": {"kept": [1, None]},
    "history": [
        {"created": "2024-01-02T03:04:05Z", "created_by": "/bin/sh -c #(nop) ADD x", "comment": "c"},
        {"created_by": "ENV A=2", "empty_layer": True},
    ],
    "os": "linux",
    "os.version": "1.2",
    "os.features": ["f"],
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "variant": "v7",
}


def test_every_field_is_read() -> None:
    config = ImageConfig.parse(json.dumps(FULL).encode())
    assert config.platform == Platform("linux", "arm", "v7", "1.2", ("f",))
    assert config.env == ("PATH=/bin", "Z=1", "A=2")
    assert config.exposed_ports == ("53/udp", "80/tcp")
    assert config.labels == (("a", "1"), ("ü", "ö"))
    assert config.healthcheck == Healthcheck(("CMD-SHELL", "true"), 5_000_000_000, retries=3)
    assert config.history[1] == History(created_by="ENV A=2", empty_layer=True)
    assert config.diff_ids == (DIGEST,)
    assert config.shell == ("/bin/bash", "-c")
    hash(config)


def test_nothing_is_lost_between_reading_and_writing() -> None:
    config = ImageConfig.parse(json.dumps(FULL).encode())
    written = config.to_json()
    assert json.loads(written) == FULL
    assert ImageConfig.parse(written) == config
    shuffled = json.dumps(dict(reversed(FULL.items()))).encode()
    assert ImageConfig.parse(shuffled).to_json() == written


def test_the_order_is_dockers_and_empty_fields_are_left_out() -> None:
    config = ImageConfig.empty(Platform("linux", "arm64"))._replace(
        cmd=("sh",), user="u", diff_ids=(DIGEST,), healthcheck=Healthcheck(("NONE",)), history=(History("t", "by"),)
    )
    assert config.to_json().decode() == (
        '{"architecture":"arm64","config":{"User":"u","Env":["' + DEFAULT_PATH + '"],"Cmd":["sh"],"WorkingDir":"/",'
        '"Healthcheck":{"Test":["NONE"]}},"history":[{"created":"t","created_by":"by"}],"os":"linux",'
        '"rootfs":{"type":"layers","diff_ids":["' + DIGEST + '"]}}'
    )


def test_scratch_has_nothing_but_its_platform_a_path_and_a_directory() -> None:
    config = ImageConfig.empty(Platform("linux", "arm", "v7"))
    assert (config.architecture, config.variant, config.os) == ("arm", "v7", "linux")
    assert (config.working_dir, config.env, config.diff_ids) == ("/", (DEFAULT_PATH,), ())
    assert json.loads(config.to_json())["rootfs"] == {"type": "layers", "diff_ids": []}


def test_a_path_is_added_only_where_there_is_none() -> None:
    config = ImageConfig("amd64", "linux", env=("XPATH=1",))
    assert config.with_path().env == (DEFAULT_PATH, "XPATH=1")
    assert config.with_path().with_path() == config.with_path()


def test_absent_and_null_are_the_same() -> None:
    null = {"architecture": "amd64", "os": "linux", "config": {"Env": None, "Labels": None}, "history": None}
    assert ImageConfig.parse(json.dumps(null).encode()) == ImageConfig("amd64", "linux")


@pytest.mark.parametrize(
    "changes",
    [
        {"config": []},
        {"config": {"Env": "x"}},
        {"config": {"Env": [1]}},
        {"config": {"Labels": {"a": {}}}},
        {"config": {"ArgsEscaped": "yes"}},
        {"config": {"Healthcheck": {"Interval": "5s"}}},
        {"rootfs": {"type": "other"}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:x"]}},
        {"history": ["x"]},
        {"os": 5},
        {"created": "x" * (1 << 21)},
    ],
)
def test_wrong_types_are_corrupt(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptBlob):
        ImageConfig.parse(json.dumps(FULL | changes).encode())
