"""Images out and in again: read by other tools, run by podman, pushed to a real registry and built upon."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cache.real_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Program

DOCKERFILE = (
    "FROM scratch AS base\nCOPY --from=busybox / /\n"
    "FROM base\nRUN echo hello > /hello\nENV GREETING=hi\nLABEL a=b\nEXPOSE 80\nUSER app\nWORKDIR /home/app\n"
    'ENTRYPOINT ["/bin/sh", "-c"]\nCMD ["cat /hello; echo $GREETING"]\n'
)


def output(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A real registry on loopback: `127.0.0.1:PORT`."""
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as address:
        yield address


def blobs_of(registry: str, repository: str, tag: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{registry}/v2/{repository}/manifests/{tag}", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}
    )
    with urllib.request.urlopen(request) as response:
        found: dict[str, Any] = json.load(response)
    return found


def test_a_layout_is_read_by_skopeo_and_unpacked_by_umoci(each_way: Program) -> None:
    layout = each_way.root / "layout"
    each_way.build(each_way.project(DOCKERFILE), "-t", "app:1", "-o", f"type=oci,tar=false,dest={layout}").ok()
    seen = json.loads(output("skopeo", "inspect", f"oci:{layout}"))
    assert seen["Labels"] == {"a": "b"}
    assert len(seen["Layers"]) == 3
    config = json.loads(output("skopeo", "inspect", "--config", f"oci:{layout}"))
    assert config["config"]["Cmd"] == ["cat /hello; echo $GREETING"]
    assert config["config"]["WorkingDir"] == "/home/app"
    assert config["config"]["ExposedPorts"] == {"80/tcp": {}}
    assert [line["created_by"] for line in config["history"] if not line.get("empty_layer")] == [
        "COPY / / # buildkit",
        "RUN /bin/sh -c echo hello > /hello # buildkit",
        "WORKDIR /home/app",
    ]
    index = json.loads((layout / "index.json").read_text())
    tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    bundle = each_way.root / "bundle"
    options = [] if os.geteuid() == 0 else ["--rootless"]
    output("umoci", "unpack", *options, "--image", f"{layout}:{tag}", bundle)
    assert (bundle / "rootfs/hello").read_text() == "hello\n"


def test_both_ways_to_mount_layers_give_the_same_image_bit_for_bit(tmp_path: Path, busybox: Path) -> None:
    """I9."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount EROFS")
    from program import Program

    ids = []
    for way in ("erofs", "dirs"):
        program = Program(tmp_path / way, busybox, {"BUILDGRAPH_SNAPSHOTTER": way, "SOURCE_DATE_EPOCH": "1700000000"})
        program.root.mkdir()
        project = program.project(
            DOCKERFILE.replace("USER app", "RUN cp -a /bin /bin2 && rm /bin2/ls && ln /hello /hello2 && mkdir /o && chmod 2750 /o\nUSER app")
        )
        archive = program.root / "image.tar"
        program.build(project, "-t", "app:1", "-o", f"type=oci,dest={archive}").ok()
        ids.append(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert ids[0] == ids[1]


def test_source_date_epoch_gives_the_same_digest_twice(tmp_path: Path, busybox: Path) -> None:
    from program import Program

    ids = []
    for number in range(2):
        program = Program(tmp_path / str(number), busybox, {"SOURCE_DATE_EPOCH": "1700000000"})
        program.root.mkdir()
        archive = program.root / "image.tar"
        program.build(program.project(DOCKERFILE), "-t", "app:1", "-o", f"type=docker,dest={archive}").ok()
        ids.append(hashlib.sha256(archive.read_bytes()).hexdigest())
        assert program.config("app:1")["created"] == "2023-11-14T22:13:20Z"
        time.sleep(1.1)
    assert ids[0] == ids[1]


def test_podman_loads_and_runs_an_image(program: Program) -> None:
    if os.geteuid() != 0:
        pytest.skip("this machine's podman runs as root only")
    archive = program.root / "image.tar"
    program.build(program.project(DOCKERFILE), "-t", "buildgraph-test:1", "-o", f"type=docker,dest={archive}").ok()
    output("podman", "load", "-i", archive)
    options = ["--rm", "--network=host", "--cgroups=disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    command = ["podman", "run", *options, "buildgraph-test:1"]
    done = subprocess.run(["unshare", "-m", "sh", "-c", 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh", *map(str, command)], capture_output=True, text=True, check=False)
    output("podman", "rmi", "buildgraph-test:1")
    assert done.stdout == "hello\nhi\n", done.stderr


def test_through_a_real_registry_and_back(each_way: Program, registry: str) -> None:
    project = each_way.project(DOCKERFILE)
    name = f"{registry}/team/app:1"
    first = each_way.build(project, "-t", name, "--push").ok()
    assert first.executed
    assert len(json.loads(output("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))["Layers"]) == 3
    # Another machine builds on it.
    other = each_way.root / "other-store"
    child = each_way.project(f"FROM {name}\nRUN cat /hello > ~/copy; cat ~/copy; echo $GREETING\n", name="child")
    built = each_way.build(child, "--store", other, "-t", f"{registry}/team/child:1", "--push").ok()
    assert built.output("0.1") == ["hello", "hi"]
    parent_layers = blobs_of(registry, "team/app", "1")["layers"]
    child_layers = blobs_of(registry, "team/child", "1")["layers"]
    assert child_layers[:3] == parent_layers, "the base's blobs keep their digests"
    again = each_way.build(child, "--store", other).ok()
    assert again.executed == []


def test_a_full_hit_fetches_no_layer(program: Program, registry: str) -> None:
    name = f"{registry}/base:1"
    program.build(program.project(DOCKERFILE), "-t", name, "--push").ok()
    other = program.root / "other-store"
    child = program.project(f"FROM {name}\nENV A=1\nCMD []\n", name="child")
    program.build(child, "--store", other, "-t", "child:1").ok()
    assert not list(other.glob("blobs/*/*")), "an image that only changes the config needs no layer"


def test_tags_move_only_with_pull(program: Program, registry: str) -> None:
    name = f"{registry}/moving:1"
    program.build(program.project(DOCKERFILE), "-t", name, "--push").ok()
    other = program.root / "other-store"
    child = program.project(f"FROM {name}\nRUN cat /hello\n", name="child")
    assert program.build(child, "--store", other).ok().output("0.1") == ["hello"]
    program.build(program.project(DOCKERFILE.replace("echo hello", "echo moved")), "-t", name, "--push").ok()
    assert program.build(child, "--store", other).ok().executed == []
    assert program.build(child, "--store", other, "--pull").ok().output("0.1") == ["moved"]


def test_a_corrupt_blob_in_a_registry_is_refused(program: Program, registry: str, tmp_path: Path) -> None:
    """I7: a lying registry costs time, never a wrong image."""
    name = f"{registry}/corrupt:1"
    program.build(program.project(DOCKERFILE), "-t", name, "--push").ok()
    layer = blobs_of(registry, "corrupt", "1")["layers"][1]["digest"].removeprefix("sha256:")
    stored = next((tmp_path / "registry").rglob(f"{layer}/data"))
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    other = program.root / "other-store"
    child = program.project(f"FROM {name}\nRUN true\n", name="child")
    failed = program.build(child, "--store", other, "-t", "never:1").failed(5)
    assert "1 | FROM" in failed.stderr or "2 | RUN" in failed.stderr
    assert "never" not in program.call("image", "--store", other, "ls").ok().stdout


def test_images_of_the_store_are_bases_by_name(program: Program) -> None:
    program.build(program.project(DOCKERFILE), "-t", "own:1").ok()
    child = program.project("FROM own:1\nRUN cat /hello\nFROM own:1\nCOPY --from=own:1 /hello /again\nRUN cat /again\n", name="child")
    built = program.build(child).ok()
    assert built.output("1.2") == ["hello"]
    names = program.call("image", "ls").ok().stdout
    assert "own:1" in names
    program.call("image", "rm", "own:1").ok()
    assert "own:1" not in program.call("image", "ls").ok().stdout


def test_the_store_is_named_before_the_action_or_behind_it(program: Program) -> None:
    other = program.root / "other-store"
    program.build(program.project(DOCKERFILE), "--store", other, "-t", "there:1").ok()
    assert "there:1" in program.call("image", "ls", "--store", other).ok().stdout
    assert "there:1" in program.call("image", "--store", other, "ls").ok().stdout
    assert "there:1" not in program.call("image", "ls").ok().stdout
    program.call("image", "tag", "there:1", "again:1", "--store", other).ok()
    assert "again:1" in program.call("image", "ls", "--store", other).ok().stdout


def test_an_oci_layout_is_a_base_and_a_source(each_way: Program) -> None:
    layout = each_way.root / "layout"
    each_way.build(each_way.project(DOCKERFILE), "-t", "app:1", "-o", f"type=oci,tar=false,dest={layout}").ok()
    child = each_way.project("FROM mine\nRUN cat /hello\nFROM scratch\nCOPY --from=mine /hello /\n", name="child")
    other = each_way.root / "other-store"
    built = each_way.build(child, "--store", other, "--build-context", f"mine=oci-layout://{layout}", "--target", "0").ok()
    assert built.output("0.1") == ["hello"]
    target = each_way.root / "files"
    each_way.build(child, "--store", other, "--build-context", f"mine=oci-layout://{layout}", "-o", str(target)).ok()
    assert (target / "hello").read_text() == "hello\n"


def test_a_directory_is_a_base(program: Program) -> None:
    project = program.project("FROM busybox\nRUN cat /etc/passwd | head -1\n")
    assert program.build(project, "-t", "dir:1").ok().output("0.1") == ["root:x:0:0::/root:/bin/sh"]
    assert program.build(project).ok().executed == []


def test_onbuild_triggers_run_in_the_child(program: Program) -> None:
    parent = program.project(DOCKERFILE + "USER root\nONBUILD COPY f /from-child\nONBUILD RUN cat /from-child\n", name="parent")
    program.build(parent, "-t", "parent:1").ok()
    assert program.config("parent:1")["config"]["OnBuild"] == ["COPY f /from-child", "RUN cat /from-child"]
    child = program.project("FROM parent:1\nRUN echo own\n", {"f": "child's"}, name="child")
    built = program.build(child, "-t", "child:1").ok()
    assert built.output("0.on2") == ["child's"]
    assert "OnBuild" not in program.config("child:1")["config"]


def test_files_of_metadata(program: Program) -> None:
    iid, metadata = program.root / "iid", program.root / "metadata.json"
    done = program.call("build", program.project(DOCKERFILE), *program.base(), "-q", "-t", "app:1", "--iidfile", iid, "--metadata-file", metadata).ok()
    assert done.stdout.strip() == iid.read_text()
    assert done.stderr == ""
    found = json.loads(metadata.read_text())
    assert found["containerimage.config.digest"] == iid.read_text()
    assert found["image.name"] == "docker.io/library/app:1"


def test_healthcheck_shell_volume_and_signal_in_the_config(program: Program) -> None:
    lines = 'SHELL ["/bin/sh", "-ec"]\nHEALTHCHECK --interval=30s --retries=2 CMD true\nVOLUME /data\nSTOPSIGNAL SIGINT\nMAINTAINER me\nCMD echo\n'
    program.build(program.project("FROM scratch\n" + lines), "-t", "c:1").ok()
    config = program.config("c:1")
    assert config["author"] == "me"
    assert config["config"]["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000, "Retries": 2}
    assert config["config"]["Volumes"] == {"/data": {}}
    assert config["config"]["StopSignal"] == "SIGINT"
    assert config["config"]["Shell"] == ["/bin/sh", "-ec"]
    assert config["config"]["Cmd"] == ["/bin/sh", "-ec", "echo"]
    assert config["config"]["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def test_podman_is_there() -> None:
    """The tests above would prove less without it."""
    for name in ("podman", "skopeo", "umoci", "docker-registry"):
        assert shutil.which(name), f"{name} is not installed"


def test_several_platforms_make_an_index(program: Program) -> None:
    dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS tool\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nFROM scratch\nCOPY --from=tool /arch /\nARG TARGETPLATFORM\nLABEL made.for=$TARGETPLATFORM\n"
    layout = program.root / "layout"
    project = program.project(dockerfile)
    done = program.call("build", project, *program.base(), "--platform", "linux/amd64,linux/arm64", "-t", "many:1", "-o", f"type=oci,tar=false,dest={layout}", "--progress", "plain").ok()
    assert "linux/arm64 [tool 2/2] RUN echo $TARGETARCH" in done.stderr
    for arch in ("amd64", "arm64"):
        config = json.loads(output("skopeo", "inspect", "--config", "--override-arch", arch, f"oci:{layout}:1"))
        assert config["architecture"] == arch
        assert config["config"]["Labels"] == {"made.for": f"linux/{arch}"}
    target = program.root / "files"
    program.call("build", project, *program.base(), "--platform", "linux/amd64,linux/arm64", "-o", str(target)).ok()
    assert [(target / f"linux_{arch}/arch").read_text() for arch in ("amd64", "arm64")] == ["amd64\n", "arm64\n"]


def test_commands_of_a_foreign_platform_say_what_is_missing(program: Program) -> None:
    if Path("/proc/sys/fs/binfmt_misc/qemu-s390x").exists():
        pytest.skip("this machine runs s390x programs")
    failed = program.build(program.project("FROM busybox\nRUN true\n"), "--platform", "linux/s390x").failed(4)
    assert "qemu's s390x" in failed.stderr
    assert "apt-get install qemu-user-static" in failed.stderr
    assert "2 | RUN true" in failed.stderr


def test_named_contexts_replace_images_and_stages(program: Program) -> None:
    program.build(program.project("FROM busybox\nRUN echo own > /which\n"), "-t", "own:1").ok()
    project = program.project(
        "FROM alpine AS a\nRUN cat /which\nFROM scratch AS replaced\nCOPY nothing /\nFROM replaced\nRUN cat /which\nCOPY --from=lib /f /f\nRUN cat /f\n",
        name="named",
    )
    lib = program.root / "lib"
    lib.mkdir()
    (lib / "f").write_text("from-lib\n")
    contexts = ["alpine=docker-image://chained", "chained=docker-image://own:1", "replaced=docker-image://own:1", f"lib={lib}"]
    options = [word for context in contexts for word in ("--build-context", context)]
    built = program.build(project, *options).ok()
    assert built.output("2.1") == ["own"]
    assert built.output("2.3") == ["from-lib"]
    assert program.build(project, *options, "--target", "a").ok().cached == ["a.1"], "the same command on the same image"
    whole = ["--build-context", "docker.io/library/alpine:latest=docker-image://own:1"]
    assert program.build(project, *whole, "--target", "a").ok().executed == []


def test_the_hostname_of_steps_may_be_chosen(program: Program) -> None:
    project = program.project("FROM busybox\nRUN hostname\n")
    assert program.build(project, "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=chosen").ok().output("0.1") == ["chosen"]


def test_an_index_around_one_image_on_request(program: Program) -> None:
    layout = program.root / "layout"
    program.build(program.project("FROM busybox\n"), "--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-t", "one:1", "-o", f"type=oci,tar=false,dest={layout}").ok()
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    assert top["mediaType"] == "application/vnd.oci.image.index.v1+json"
    inner = json.loads((layout / "blobs/sha256" / top["digest"].removeprefix("sha256:")).read_text())
    assert len(inner["manifests"]) == 1
