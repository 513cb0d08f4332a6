"""Base images and Dockerfiles that mean harm: they get no further than their own container (I5)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

Member = tuple[str, bytes, bytes | str]
DIR, FILE, LINK = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE


def make_tar(members: list[Member]) -> bytes:
    """(name, type, bytes of a file or target of a link)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            data = b""
            if kind == DIR:
                pass
            elif isinstance(content, str):
                member.linkname = content
            else:
                data, member.size = content, len(content)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def make_layout(directory: Path, layers: list[bytes], config: dict[str, Any]) -> str:
    """An OCI layout with one image; the value for --build-context."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    image = {
        "architecture": "arm64" if os.uname().machine == "aarch64" else "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(image).encode(), "config.v1+json"),
        "layers": [put(layer, "layer.v1.tar") for layer in layers],
    }
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return f"x=oci-layout://{directory}"


def tools(busybox: Path) -> list[Member]:
    names = ("sh", "ls", "cat", "find", "sort", "grep", "touch")
    binary = (busybox / "bin/busybox").read_bytes()
    return [("bin", DIR, b""), ("bin/busybox", FILE, binary), *((f"bin/{name}", LINK, "busybox") for name in names)]


def test_layers_that_contradict_each_other_look_alike_to_steps_and_to_outputs(each_way: Program) -> None:
    layers = [
        make_tar(
            [
                *tools(each_way.busybox),
                ("a/f", FILE, b"1"), ("a/g", FILE, b"g"), ("b/x", FILE, b"old"), ("b/y", FILE, b"y"), ("c", FILE, b"c"),
                ("d/e/z", FILE, b"z"), ("ln", LINK, "a"), ("k/1", FILE, b"1"), ("m/n/o", FILE, b"o"), ("q/1", FILE, b"1"),
            ]
        ),
        make_tar(
            [
                ("a/.wh.f", FILE, b""), ("b/.wh..wh..opq", FILE, b""), ("b/w", FILE, b"w"), ("c/in", FILE, b"in"),
                (".wh.d", FILE, b""), ("ln/new", FILE, b"through the link"), ("k", LINK, "/etc"),
                ("m/n/.wh.o", FILE, b""), (".wh.q", FILE, b""), ("q/2", FILE, b"2"),
            ]
        ),
        make_tar(
            [
                ("d/new", FILE, b"n"), ("b/.wh.w", FILE, b""), ("b/x", FILE, b"new"), ("k", DIR, b""), ("k/2", FILE, b"2"),
                ("c", FILE, b"a file again"), (".wh.nothere", FILE, b""), ("zz/.wh.nothere", FILE, b""),
            ]
        ),
    ]  # fmt: skip
    context = ["--build-context", make_layout(each_way.root / "image", layers, {"Env": ["PATH=/bin"]})]
    project = each_way.project(
        "FROM x AS x\nFROM x\n"
        "RUN --mount=type=bind,from=x,target=/mnt cd /mnt; find . -type f | sort | grep -v bin/; cat b/x c a/new\n"
    )
    seen = each_way.build(project, *context).ok().output("1.1")
    expected = ["./a/g", "./a/new", "./b/x", "./c", "./d/new", "./k/2", "./q/2"]
    assert seen == [*expected, "newa file againthrough the link"]
    written = each_way.files(project, "--target", "x", *context)
    found = (path for path in written.rglob("*") if path.is_file() and not path.is_symlink())
    assert sorted(f"./{path.relative_to(written)}" for path in found if "bin/" not in str(path)) == expected


@pytest.mark.parametrize("number", range(3, 11))
def test_a_working_directory_below_an_open_descriptor_leads_nowhere(program: Program, number: int) -> None:
    """CVE-2024-21626: a descriptor of the host that the runtime leaves open."""
    config = {"Env": ["PATH=/bin"], "WorkingDir": f"/proc/self/fd/{number}/../../../.."}
    layout = make_layout(program.root / "image", [make_tar(tools(program.busybox))], config)
    program.build(program.project("FROM x\nRUN ls\n"), "--build-context", layout).failed(1)


@pytest.mark.parametrize("link", ["/../../../../../..", "/proc/self/root", "/proc/1/root"])
def test_a_mount_below_a_cache_does_not_follow_its_symlinks_to_the_host(program: Program, link: str) -> None:
    victim = program.root / "victim"
    victim.mkdir()
    project = program.project(
        "FROM scratch\nCOPY --from=busybox / /\n"
        f"RUN --mount=type=cache,target=/c ln -s {link}{victim} /c/x\n"
        "RUN --mount=type=cache,target=/c --mount=type=cache,id=other,target=/c/x touch /c/x/escaped\n"
    )
    program.build(project)  # whether it fails is the runtime's choice
    assert not list(victim.iterdir())


def test_a_step_cannot_forge_marks_of_removed_files(program: Program) -> None:
    project = program.project("FROM scratch\nCOPY --from=busybox / /\nRUN touch /etc/.wh.passwd\n")
    assert "'etc/.wh.passwd' cannot be kept in a layer" in program.build(project).failed(4).stderr
